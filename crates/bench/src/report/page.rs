//! The page docs/benchmarks.md, as a function of a run's data.

use std::fmt::Write;

use super::goals::reference;
use super::pictures::Picture;
use super::{Data, Figure, Goal, Verdict};

/// What stands under a part's heading.
const WORDS: [(&str, &str); 8] = [
    (
        "Memory",
        "Anonymous memory of the server (heap and stacks) above what it had before the first connection, divided by \
         the connections. Each has connected and has one subscription. What the kernel holds for the socket is not in \
         it. After the burst means: everyone got 2,000 publications, then 25 seconds passed. A former connection is one \
         of all there were, 25 seconds after 95 of 100 have left, so the share of those who stay is in it.",
    ),
    (
        "Deliveries",
        "User and system time of the server, for a million deliveries of 128 bytes. At a pace (1,000 subscribers, \
         20 publications a second) each frame is a write of its own; in a flood frames share writes.",
    ),
    (
        "Through Redis",
        "Each connection has a channel of its own, and publications come from Redis, as notifications do. The \
         baseline has no relay. Redis ran on the same processors as the node and the clients.",
    ),
    (
        "Letting in",
        "From TCP to the reply to subscribe. A resumed handshake brings a ticket of an earlier one; ECDSA handshakes \
         save little by it, RSA handshakes most.",
    ),
    (
        "Storm and slow readers",
        "All connections but the established ones end at once and come back, while publications to the established \
         ones go on.",
    ),
    (
        "Polling",
        "The same updates to the same clients: an update of 128 bytes to each every two seconds. HTTP is served by the \
         baseline on kept-alive connections, with the headers that browsers send. Bytes are those of the clients' \
         sockets, headers included, TCP and IP not. Updates are published by a client, and Tidegate says which one: \
         that is what its updates have more than the baseline's.",
    ),
    (
        "Scaling",
        "Clients, nodes and Redis share the processors of one machine: more nodes than processors add no rate.",
    ),
    ("Nothing lost", ""),
];

const READING: &[&str] = &[
    "Every figure is measured from outside: memory and processor time from `/proc`, latency and loss by the clients.",
    "Figures are medians where something was done several times; all values are in [benchmarks.json](benchmarks.json).",
    "A ratio is Tidegate's figure to the baseline's in the same run: below 1 is less, which is good for bytes, CPU and \
     time, and bad for rates. Ratios travel to other machines, figures do not.",
    "The baseline has no limits, no deadlines, no drain and no relay, and uses the allocator of the system.",
    "Goals are for a machine with 2 processors.",
];

const NOISE: &[&str] = &[
    "Bytes a connection repeat within a few per cent. So do ratios of CPU for the same work.",
    "CPU is read in ticks of 10 ms: a flood's few tenths of a second are good to some 5 %, heartbeats of 25 s to 0.04 % \
     of a processor.",
    "Rates and latencies include that clients, server and Redis share the processors; on a machine with other work they \
     vary by half and more.",
    "CPU of one frame a write is mostly the kernel's TCP, and differs between kernels and processors.",
];

/// The page.
pub(crate) fn page(data: &Data, pictures: &[Picture]) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = write(&mut out, data, pictures);
    out
}

fn write(out: &mut String, data: &Data, pictures: &[Picture]) -> std::fmt::Result {
    let about = &data.about;
    writeln!(out, "# Benchmarks\n")?;
    writeln!(
        out,
        "<!-- Written by `make bench` from benchmarks.json. Do not edit: a test holds the two together. -->\n"
    )?;
    let words = "What connections cost on Tidegate and on the baseline, a plain actix-ws server as a team would write \
                 it, measured in one run on one machine. To measure yours: `make bench`. How each scenario works: \
                 [Benchmarking](guides/benchmarking.md).";
    writeln!(out, "{}\n", wrapped(words))?;
    summary(out, data)?;
    writeln!(out, "## The run\n\n| | |\n|---|---|")?;
    let memory = about.memory_bytes as f64 / 1_073_741_824.0;
    for (what, value) in [
        ("date", about.date.clone()),
        ("processor", format!("{}, {} of them", about.processor, about.processors)),
        ("memory", format!("{memory:.1} GiB")),
        ("kernel", about.kernel.clone()),
        ("Tidegate", format!("{}, commit {}, release build", about.version, about.commit)),
        ("command", format!("`{}`", about.command)),
        ("time", format!("{:.0} s", about.seconds)),
        ("load before", format!("{:.2}", about.load_before)),
    ] {
        writeln!(out, "| {what} | {value} |")?;
    }
    if about.load_before > 0.5 {
        let words = "The machine had other work when the run began: of this run trust bytes and ratios of CPU, and take \
                     rates and latencies for what they may be at worst.";
        writeln!(out, "\n{}", wrapped(words))?;
    }
    let mut done: Vec<&str> = Vec::new();
    let groups = data.figures.iter().map(|figure| figure.group.as_str()).chain(["Scaling"]);
    for group in groups {
        if done.contains(&group) {
            continue;
        }
        done.push(group);
        part(out, data, pictures, group)?;
    }
    closing(out, data)
}

/// What was reached and what was not, before anything else.
fn summary(out: &mut String, data: &Data) -> std::fmt::Result {
    let with = |verdict: Verdict| data.figures.iter().filter(move |figure| figure.verdict == verdict);
    let count = |verdict| with(verdict).count();
    let (met, missed, not) = (count(Verdict::Met), count(Verdict::Missed), count(Verdict::NotMeasured));
    writeln!(out, "Of {} goals {met} are met, {missed} missed, {not} not measured.\n", met + missed + not)?;
    for figure in with(Verdict::Missed) {
        let (value, goal) = (figure.tidegate.map(number).unwrap_or_default(), goal(figure.goal));
        let unit = unit(figure);
        let line = format!("- Missed: {}: {value}{unit}, goal {goal}{unit}.{}", figure.name, ratio(figure));
        writeln!(out, "{}", wrapped(&line).replace('\n', "\n  "))?;
    }
    for figure in with(Verdict::NotMeasured) {
        writeln!(out, "- Not measured: {}.", figure.name)?;
    }
    if missed + not > 0 {
        writeln!(out)?;
    }
    Ok(())
}

/// What a missed goal is as a ratio to the baseline, where that is known of the machine for which it was set.
fn ratio(figure: &Figure) -> String {
    let (Some(reference), Some(Goal::AtMost(goal)), Some(ratio), Some(baseline)) =
        (reference(&figure.key), figure.goal, figure.ratio, figure.baseline)
    else {
        return String::new();
    };
    format!(
        " The baseline took {} here and {} where the goal was set: to it {ratio:.3}, goal {:.3}.",
        number(baseline),
        number(reference),
        goal / reference
    )
}

fn part(out: &mut String, data: &Data, pictures: &[Picture], group: &str) -> std::fmt::Result {
    let figures: Vec<_> = data.figures.iter().filter(|figure| figure.group == group).collect();
    let mine: Vec<_> = pictures.iter().filter(|picture| picture.group == group).collect();
    if figures.is_empty() && mine.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n## {group}\n")?;
    if let Some((_, words)) = WORDS.iter().find(|(name, words)| *name == group && !words.is_empty()) {
        writeln!(out, "{}\n", wrapped(words))?;
    }
    if !figures.is_empty() {
        writeln!(
            out,
            "| figure | unit | goal | Tidegate | baseline | ratio | |\n|---|---|--:|--:|--:|--:|---|"
        )?;
    }
    for figure in figures {
        let verdict = match figure.verdict {
            Verdict::Met => "met",
            Verdict::Missed => "**missed**",
            Verdict::NoGoal => "",
            Verdict::NotMeasured => "not measured",
        };
        let value = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), number);
        writeln!(
            out,
            "| {} | {} | {} | {} | {} | {} | {verdict} |",
            figure.name,
            figure.unit,
            goal(figure.goal),
            value(figure.tidegate),
            value(figure.baseline),
            figure.ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.3}")),
        )?;
    }
    if group == "Polling" {
        polling(out, data)?;
    }
    for picture in mine {
        writeln!(out, "\n![{}](pictures/bench-{}.svg)", picture.title, picture.name)?;
        if let Some(series) = data.series.iter().find(|series| series.key == picture.name) {
            table(out, series)?;
        }
    }
    Ok(())
}

/// The points of a picture of lines, as numbers.
fn table(out: &mut String, series: &super::Series) -> std::fmt::Result {
    let mut xs: Vec<f64> =
        series.lines.iter().flat_map(|line| line.points.iter().map(|point| point.0)).collect();
    xs.sort_by(f64::total_cmp);
    xs.dedup();
    write!(out, "\n| {} |", series.x)?;
    xs.iter().try_for_each(|x| write!(out, " {} |", number(*x)))?;
    writeln!(out, "\n|---|{}", "--:|".repeat(xs.len()))?;
    for line in &series.lines {
        write!(out, "| {}, {} |", line.name, series.y)?;
        for x in &xs {
            let point = line.points.iter().find(|point| point.0.total_cmp(x).is_eq());
            write!(out, " {} |", point.map_or_else(|| "-".to_owned(), |point| number(point.1)))?;
        }
        writeln!(out)?;
    }
    Ok(())
}

fn polling(out: &mut String, data: &Data) -> std::fmt::Result {
    if data.polling.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "\n| way | B sent, an update | B received, an update | B a client and hour | CPU us an update | p50 ms | p99 \
         ms | lost |\n|---|--:|--:|--:|--:|--:|--:|--:|"
    )?;
    for way in &data.polling {
        let cells = [
            way.sent_per_update,
            way.received_per_update,
            way.bytes_per_client_hour,
            way.cpu_us_per_update,
            way.p50_ms,
            way.p99_ms,
            way.lost,
        ];
        writeln!(out, "| {} | {} |", way.name, cells.map(number).join(" | "))?;
    }
    Ok(())
}

fn closing(out: &mut String, data: &Data) -> std::fmt::Result {
    for (heading, points) in [("How to read it", READING), ("What is noisy", NOISE)] {
        writeln!(out, "\n## {heading}\n")?;
        for point in points {
            writeln!(out, "- {}", wrapped(point).replace('\n', "\n  "))?;
        }
    }
    if !data.missing.is_empty() {
        writeln!(out, "\n## What was not measured\n")?;
        for missing in &data.missing {
            writeln!(out, "- {}: {}", missing.part, missing.why)?;
        }
    }
    Ok(())
}

fn unit(figure: &Figure) -> String {
    if figure.unit.is_empty() { String::new() } else { format!(" {}", figure.unit) }
}

pub(crate) fn goal(goal: Option<Goal>) -> String {
    match goal {
        Some(Goal::AtMost(value)) => format!("<= {}", number(value)),
        Some(Goal::AtLeast(value)) => format!(">= {}", number(value)),
        None => String::new(),
    }
}

/// A paragraph in lines of at most 120 characters.
fn wrapped(text: &str) -> String {
    let (mut out, mut width) = (String::new(), 0);
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if width > 0 {
            let breaks = width + 1 + length > 120;
            out.push(if breaks { '\n' } else { ' ' });
            width = if breaks { 0 } else { width + 1 };
        }
        out.push_str(word);
        width += length;
    }
    out
}

/// As many digits as mean something, thousands apart.
pub(crate) fn number(value: f64) -> String {
    let size = value.abs();
    let digits = match size {
        _ if size >= 100.0 || size == 0.0 => 0,
        _ if size >= 10.0 => 1,
        _ if size >= 1.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    if size < 1_000.0 {
        return text;
    }
    let (sign, digits) = text.split_at(usize::from(value < 0.0));
    let mut spaced = String::from(sign);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            spaced.push(',');
        }
        spaced.push(digit);
    }
    spaced
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_paragraph_keeps_its_words_and_its_width() {
        let text = "word and another ".repeat(40);
        let lines = wrapped(&text);
        assert!(lines.lines().all(|line| line.len() <= 120 && !line.ends_with(' ')), "{lines}");
        assert!(lines.split_whitespace().eq(text.split_whitespace()));
    }

    #[test]
    fn numbers_have_the_digits_that_mean_something() {
        for (value, text) in [
            (0.0, "0"),
            (0.0714, "0.071"),
            (5.8, "5.80"),
            (37.26, "37.3"),
            (512.4, "512"),
            (15_036.0, "15,036"),
            (2_702_665.0, "2,702,665"),
            (999.9, "1000"),
            (-1_234.0, "-1,234"),
        ] {
            assert_eq!(number(value), text);
        }
    }
}
