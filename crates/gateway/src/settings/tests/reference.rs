//! The reference page and the code say the same.

use super::*;

/// The cells of the rows of all tables in a page whose first cell is code, that cell bare.
fn rows(page: &str) -> Vec<Vec<String>> {
    let cells = |line: &str| -> Vec<String> {
        let inner = line.trim().trim_start_matches('|').trim_end_matches('|');
        inner.split('|').map(|cell| cell.trim().to_owned()).collect()
    };
    let bare = |mut cells: Vec<String>| {
        cells[0] = cells[0].strip_prefix('`')?.strip_suffix('`')?.to_owned();
        Some(cells)
    };
    page.lines().filter(|line| line.starts_with("| `")).map(cells).filter_map(bare).collect()
}

#[test]
fn the_reference_has_every_key_with_its_default_and_no_other() {
    let page = include_str!("../../../../../docs/reference/settings.md");
    let known = known::Known::new();
    let (keys, fields): (Vec<_>, Vec<_>) = rows(page).into_iter().partition(|row| row.len() == 4);
    let documented: Vec<(String, String)> =
        keys.into_iter().map(|row| (row[0].clone(), row[1].trim_matches('`').to_owned())).collect();
    let mut expected: Vec<(String, String)> = Vec::new();
    for key in known.keys() {
        let (default, _) = known.default(key, false).unwrap();
        let shown = value::shown(key, default);
        expected.push((key.clone(), shown.trim_matches('"').to_owned()));
        if let Some((dev, _)) = known.default(key, true).filter(|(dev, _)| *dev != default)
            && value::text(dev).is_some_and(|dev| dev != "true")
        {
            let words = format!("In dev mode `{}`.", value::text(dev).unwrap());
            let line = page.lines().find(|line| line.starts_with(&format!("| `{key}`"))).unwrap();
            assert!(line.contains(&words), "{key}: {words}");
        }
    }
    let sorted = |mut pairs: Vec<(String, String)>| {
        pairs.sort();
        pairs
    };
    assert_eq!(sorted(documented), sorted(expected));

    let mut documented: Vec<String> = fields.into_iter().map(|row| row[0].clone()).collect();
    let mut expected: Vec<String> = ["api.keys", "namespaces", "proxy.endpoints", "proxy.rpc_methods"]
        .iter()
        .flat_map(|list| known::item_keys(list))
        .map(|field| (*field).to_owned())
        .collect();
    documented.sort();
    expected.sort();
    assert_eq!(documented, expected);
}

#[test]
fn the_example_of_the_reference_is_valid() {
    let page = include_str!("../../../../../docs/reference/settings.md");
    let yaml = page.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
    let problems = with_yaml(yaml).unwrap_err().0;
    // All but the files that are not here.
    let files: Vec<&str> = problems.iter().map(|problem| problem.key.as_str()).collect();
    assert_eq!(files, ["api.keys[0].key_file", "relay.redis.password_file", "tls.cert"], "{problems:?}");
}

#[test]
fn the_bounds_of_the_reference_are_those_of_the_code() {
    let page = include_str!("../../../../../docs/reference/settings.md");
    let mut compared = 0;
    for row in rows(page).iter().filter(|row| row.len() == 4) {
        let bounds = row[2].split([',', ';']).next().unwrap();
        // Too large for everything, as whichever of a number, a size or a duration the key takes.
        let refused =
            ["99999999999", "999999GiB", "999days"].map(|value| with_flags(&[(row[0].as_str(), value)]));
        let advice =
            refused.into_iter().filter_map(Result::err).flat_map(|problems| problems.0).find_map(|it| {
                let (_, bounds) =
                    it.advice.split_once(" from ").filter(|_| it.key == row[0] && bounds.contains(" to "))?;
                Some(bounds.trim_end_matches(", or auto").replace(".0 ", " "))
            });
        if let Some(advice) = advice {
            assert_eq!(bounds, advice, "{}", row[0]);
            compared += 1;
        }
    }
    assert!(compared >= 20, "only {compared} keys have bounds");
}
