//! Two kinds of pictures as SVG: bars that lie, and lines. Colours follow the reader's theme, light or dark.

use plotters::backend::SVGBackend;
use plotters::chart::ChartBuilder;
use plotters::coord::Shift;
use plotters::drawing::{DrawingArea, IntoDrawingArea};
use plotters::element::{Circle, Rectangle, Text};
use plotters::series::LineSeries;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, FontDesc, FontFamily, FontStyle, RGBColor, ShapeStyle, TextStyle};

use crate::error::Error;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

const FONT: &str = "system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif";
const WIDTH: u32 = 760;

/// (light, dark) of everything that is drawn. A light colour stands for one thing only, as the dark one replaces it.
const CARD: (RGBColor, &str) = (RGBColor(0xfb, 0xfc, 0xfd), "#10161c");
const EDGE: (RGBColor, &str) = (RGBColor(0xd5, 0xdd, 0xe4), "#2d3945");
const INK: (RGBColor, &str) = (RGBColor(0x17, 0x21, 0x2b), "#e4eaf0");
const FAINT: (RGBColor, &str) = (RGBColor(0x4b, 0x58, 0x63), "#a9b6c2");
const LINES: [(RGBColor, &str); 4] = [
    (RGBColor(0x0b, 0x6b, 0x7d), "#4fb8cc"),
    (RGBColor(0xb5, 0x65, 0x1d), "#f0a860"),
    (RGBColor(0x5b, 0x4b, 0xa8), "#a99bf0"),
    (RGBColor(0xb3, 0x26, 0x1e), "#ff8a80"),
];

/// One thing with a bar of each server that has a value: (which line of the legend, value, the value in words).
pub(crate) struct Group {
    pub(crate) label: String,
    pub(crate) bars: Vec<(usize, f64, String)>,
}

/// Bars, the longest as wide as there is room.
pub(crate) fn bars(title: &str, legend: &[&str], groups: &[Group]) -> Result<String, Error> {
    const LEFT: i32 = 290;
    const ROOM: f64 = 340.0;
    let count: usize = groups.iter().map(|group| group.bars.len()).sum();
    // Nothing here is near the bounds of the types: a picture has some ten groups.
    let height = 76 + 20 * count as u32 + 14 * groups.len() as u32;
    let longest = groups.iter().flat_map(|group| &group.bars).map(|bar| bar.1).fold(0.0, f64::max);
    picture(title, height, |area| {
        names(area, legend, 24)?;
        let mut y = 70;
        for group in groups {
            let middle = y + 10 * group.bars.len() as i32 - 2;
            text(area, &group.label, (LEFT - 12, middle), 16, INK.0, HPos::Right, false)?;
            for (line, value, words) in &group.bars {
                let share = if longest > 0.0 { (value / longest).clamp(0.0, 1.0) } else { 0.0 };
                let end = LEFT + 2 + (share * ROOM).round() as i32;
                let colour = LINES[line % LINES.len()].0;
                rectangle(area, [(LEFT, y), (end, y + 15)], colour.filled())?;
                text(area, words, (end + 6, y + 8), 15, INK.0, HPos::Left, false)?;
                y += 20;
            }
            y += 14;
        }
        Ok(())
    })
}

/// Lines through points, from zero.
pub(crate) fn lines(
    title: &str,
    (x, y): (&str, &str),
    series: &[(&str, Vec<(f64, f64)>)],
) -> Result<String, Error> {
    let points = || series.iter().flat_map(|(_, points)| points);
    let right = points().map(|point| point.0).fold(1.0, f64::max) * 1.02;
    let top = points().map(|point| point.1).fold(f64::MIN_POSITIVE, f64::max) * 1.08;
    let legend: Vec<_> = series.iter().map(|(name, _)| *name).collect();
    picture(title, 360, |area| {
        names(area, &legend, 24)?;
        let label =
            TextStyle::from(FontDesc::new(FontFamily::Name(FONT), 15.0, FontStyle::Normal)).color(&FAINT.0);
        let mut chart = ChartBuilder::on(area)
            .margin_top(64)
            .margin_right(24)
            .margin_left(12)
            .margin_bottom(8)
            .x_label_area_size(44)
            .y_label_area_size(64)
            .build_cartesian_2d(0.0..right, 0.0..top)
            .map_err(failed)?;
        chart
            .configure_mesh()
            .x_desc(x)
            .y_desc(y)
            .x_labels(6)
            .y_labels(6)
            .disable_x_mesh()
            .light_line_style(EDGE.0.mix(0.0))
            .bold_line_style(EDGE.0)
            .axis_style(FAINT.0)
            .label_style(label.clone())
            .axis_desc_style(label.clone())
            .x_label_formatter(&|value| whole(*value))
            .y_label_formatter(&|value| plain(*value))
            .draw()
            .map_err(failed)?;
        for (index, (_, points)) in series.iter().enumerate() {
            let colour = LINES[index % LINES.len()].0;
            chart
                .draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2)))
                .map_err(failed)?;
            chart
                .draw_series(points.iter().map(|point| Circle::new(*point, 3, colour.filled())))
                .map_err(failed)?;
        }
        Ok(())
    })
}

/// The card with its title, around what `inner` draws.
fn picture(
    title: &str,
    height: u32,
    inner: impl FnOnce(&Area<'_>) -> Result<(), Error>,
) -> Result<String, Error> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        area.fill(&CARD.0).map_err(failed)?;
        let corner = (i32::try_from(WIDTH).unwrap_or(0) - 1, i32::try_from(height).unwrap_or(0) - 1);
        rectangle(&area, [(0, 0), corner], EDGE.0)?;
        text(&area, title, (24, 24), 20, INK.0, HPos::Left, true)?;
        inner(&area)?;
        area.present().map_err(failed)?;
    }
    Ok(themed(&svg, title))
}

/// The names of the lines, side by side under the title.
fn names(area: &Area<'_>, names: &[&str], left: i32) -> Result<(), Error> {
    let mut x = left;
    for (index, name) in names.iter().enumerate() {
        let colour = LINES[index % LINES.len()].0;
        rectangle(area, [(x, 42), (x + 12, 54)], colour.filled())?;
        text(area, name, (x + 18, 48), 15, FAINT.0, HPos::Left, false)?;
        x += 44 + 8 * i32::try_from(name.chars().count()).unwrap_or(0);
    }
    Ok(())
}

fn rectangle(area: &Area<'_>, corners: [(i32, i32); 2], style: impl Into<ShapeStyle>) -> Result<(), Error> {
    area.draw(&Rectangle::new(corners, style)).map_err(failed)
}

fn text(
    area: &Area<'_>,
    words: &str,
    at: (i32, i32),
    size: i32,
    colour: RGBColor,
    from: HPos,
    bold: bool,
) -> Result<(), Error> {
    let style = if bold { FontStyle::Bold } else { FontStyle::Normal };
    let font = FontDesc::new(FontFamily::Name(FONT), f64::from(size), style);
    let style = TextStyle::from(font).color(&colour).pos(Pos::new(from, VPos::Center));
    area.draw(&Text::new(words.to_owned(), at, style)).map_err(failed)
}

/// A number on an axis of things that are counted: there is no half a node.
fn whole(value: f64) -> String {
    if value.fract() == 0.0 { plain(value) } else { String::new() }
}

/// A number on an axis.
fn plain(value: f64) -> String {
    match value {
        v if v >= 1e6 => format!("{} M", v / 1e6),
        v if v >= 5e3 => format!("{} k", v / 1e3),
        v => format!("{v}"),
    }
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::Asked(format!("a picture could not be drawn: {error}"))
}

/// Adds what a reader without eyes hears, and the dark colours.
fn themed(svg: &str, title: &str) -> String {
    let mut dark = String::new();
    for (light, dark_colour) in [CARD, EDGE, INK, FAINT].iter().chain(&LINES) {
        let RGBColor(red, green, blue) = light;
        let light = format!("#{red:02X}{green:02X}{blue:02X}");
        for what in ["fill", "stroke"] {
            dark.push_str(&format!("[{what}=\"{light}\"]{{{what}:{dark_colour}}}"));
        }
    }
    let head =
        format!("<title>{title}</title>\n<style>@media (prefers-color-scheme: dark){{{dark}}}</style>\n");
    match svg.split_once(">\n") {
        Some((open, rest)) => format!("{open} role=\"img\">\n{head}{rest}"),
        None => svg.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_colour_has_a_dark_one_and_words_are_escaped() {
        let groups =
            [Group { label: "a < b".into(), bars: vec![(0, 1.0, "1".into()), (1, f64::NAN, "none".into())] }];
        let svg = bars("title", &["Tidegate", "baseline"], &groups).expect("it can be drawn");
        assert!(
            svg.contains("a &lt; b") && svg.contains("<title>title</title>") && svg.contains("role=\"img\"")
        );
        let (style, body) = svg.split_once("</style>").expect("there is a style sheet");
        for part in body.split("fill=\"#").skip(1).chain(body.split("stroke=\"#").skip(1)) {
            let colour = &part[..6];
            assert!(style.contains(colour), "#{colour} stays as it is in the dark");
        }
    }

    #[test]
    fn lines_without_a_point_or_with_one_are_drawn() {
        for points in [vec![], vec![(1.0, 0.0)], vec![(1.0, 5.0), (2.0, 7.0)]] {
            assert!(lines("title", ("x", "y"), &[("one", points)]).is_ok());
        }
    }
}
