//! What this node is to do wrong: `TIDEGATE_SABOTAGE` is `repairs`, `probes`, `replies` or `nothing`. Only with the feature
//! `sabotage`, for the delivery checker's own tests.

/// Makes it so, where the variable is set.
///
/// # Panics
/// When it has another value.
#[expect(clippy::disallowed_methods, reason = "this module reads the environment")]
pub(crate) fn begin() {
    let Ok(word) = std::env::var("TIDEGATE_SABOTAGE") else { return };
    tracing::warn!("sabotaged: {word}");
    match word.as_str() {
        "repairs" => tidegate_relay::sabotage::choose(tidegate_relay::sabotage::Sabotage::DropRepairs),
        "probes" => tidegate_relay::sabotage::choose(tidegate_relay::sabotage::Sabotage::SkipProbes),
        "replies" => tidegate_hub::sabotage::withhold_replies(),
        "nothing" => {}
        other => panic!("TIDEGATE_SABOTAGE={other}: repairs, probes, replies or nothing"),
    }
}
