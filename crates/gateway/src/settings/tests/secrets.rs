//! Secrets: taken as they are, never shown.

use super::*;

#[test]
fn secrets_are_never_shown() {
    let scratch = Scratch::new();
    let file = scratch.write(
        "t.yaml",
        "relay: {kind: redis, redis: {url: 'redis://tide:hush-url@10.0.0.1:6379/0'}}\n\
         api: {keys: [{name: backend, key: hush-hush-hush-key, scope: admin}]}\n",
    );
    let loaded = load(&Sources { file: Some(file), ..Sources::default() }, &machine()).unwrap();
    assert!(loaded.effective.contains("url: \"redis://tide:***@10.0.0.1:6379/0\""), "{}", loaded.effective);
    assert!(loaded.effective.contains("  - {name: backend, key: ***, scope: admin}"), "{}", loaded.effective);
    let debug = format!("{:?}", loaded.settings);
    assert!(!loaded.effective.contains("hush") && !debug.contains("hush"), "{debug}");
    let RelaySettings::Redis(redis) = loaded.settings.relay else { panic!("memory") };
    assert_eq!(redis.topology, Topology::Server("redis://10.0.0.1:6379/0".to_owned()));
    assert_eq!((redis.username.unwrap(), redis.password.unwrap().expose()), ("tide".to_owned(), "hush-url"));

    for (key, value) in [
        ("relay.redis.pasword", "hush"),
        ("api.keys", "hush"),
        ("api.keys", "[\"hush\"]"),
        ("api.keys", "[{\"name\":\"a\",\"key\":\"hush\"}]"),
        ("api.keys", "[{\"name\":\"a\",\"key\":\"hush"),
        ("relay.redis.url", "redis://x:hush@"),
        ("relay.redis.url", "http://x:hush@host/"),
        ("api.keys", "[{\"name\":\"a\",\"scope\":\"read\",\"kee\":\"hush\"}]"),
        ("api.key", "hush"),
    ] {
        let report = with_flags(&[(key, value)]).unwrap_err().to_string();
        assert!(!report.contains("hush"), "{report}");
    }
}

#[test]
fn a_secret_of_digits_keeps_its_zeros() {
    let redis = |pairs: &[(&str, &str)]| match with_flags(pairs).unwrap().settings.relay {
        RelaySettings::Redis(redis) => redis.password.unwrap().expose().to_owned(),
        RelaySettings::Memory(_) => panic!("memory"),
    };
    assert_eq!(redis(&[("relay.kind", "redis"), ("relay.redis.password", "007")]), "007");
    let scratch = Scratch::new();
    let file = scratch.write("password", "007\n");
    let file = file.to_str().unwrap();
    assert_eq!(redis(&[("relay.kind", "redis"), ("relay.redis.password_file", file)]), "007");
    let quoted = with_yaml("relay: {kind: redis, redis: {password: '007'}}").unwrap();
    assert!(format!("{:?}", quoted.settings.relay).contains("Some(***)"));
    let bare = problem(with_yaml("relay: {kind: redis, redis: {password: 007}}"));
    assert!(bare.advice.contains("put it in quotes"), "{bare}");
}

#[test]
fn a_secret_and_its_file_together_are_refused() {
    let scratch = Scratch::new();
    let file = scratch.write("secret", "sixteen characters and more");
    let file = file.to_str().unwrap();
    let both = problem(with_flags(&[("relay.redis.password", "x"), ("relay.redis.password_file", file)]));
    assert_eq!(both.key, "relay.redis.password_file");
    assert_eq!(both.advice, "relay.redis.password is set too: take one of them out");
    let item = problem(with_yaml(&format!(
        "api: {{keys: [{{name: a, key: sixteen-characters-and-more, key_file: '{file}', scope: read}}]}}"
    )));
    assert_eq!(item.advice, "key is set too: take one of them out");
    let good = with_yaml(&format!("api: {{keys: [{{name: a, key_file: '{file}', scope: read}}]}}")).unwrap();
    assert_eq!(good.settings.api.keys[0].key.expose(), "sixteen characters and more");
    let missing = problem(with_flags(&[("relay.redis.password_file", "/nowhere/at/all")]));
    assert!(missing.advice.starts_with("cannot be read"), "{missing}");
}
