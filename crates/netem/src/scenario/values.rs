//! The values of a scenario file: quantities in text form, and tables. Each is checked while it is
//! read, so that an error names the line.

use std::time::Duration;

use serde::Deserialize;

use crate::jitter::Spread;
use crate::loss::Loss;
use crate::pipe::Limit;
use crate::police::Police;
use crate::trace::Walk;
use crate::units::{UnitError, parse_duration, parse_rate_bps, parse_ratio, parse_size_bytes};

/// A quantity in text form.
macro_rules! quantity {
    ($name:ident, $value:ty, $parse:expr) => {
        #[derive(Debug, Clone, Copy, Deserialize)]
        #[serde(try_from = "String")]
        pub(super) struct $name(pub(super) $value);

        impl TryFrom<String> for $name {
            type Error = UnitError;

            fn try_from(text: String) -> Result<Self, UnitError> {
                $parse(text.as_str()).map(Self)
            }
        }
    };
}

quantity!(Span, Duration, parse_duration);
quantity!(Bps, u64, parse_rate_bps);
quantity!(Ratio, f64, parse_ratio);
quantity!(Size, u64, parse_size_bytes);

#[derive(Deserialize)]
#[serde(try_from = "toml::Value")]
pub(super) enum RateValue {
    Unlimited,
    Constant(u64),
    TraceFile(String),
    Walk(Walk),
}

impl TryFrom<toml::Value> for RateValue {
    type Error = String;

    fn try_from(value: toml::Value) -> Result<Self, String> {
        if let toml::Value::String(text) = value {
            if text == "unlimited" {
                return Ok(Self::Unlimited);
            }
            return parse_rate_bps(&text).map(Self::Constant).map_err(|error| error.to_string());
        }
        let table: RateTable =
            value.try_into().map_err(|error: toml::de::Error| error.message().to_owned())?;
        match table {
            RateTable { trace: Some(file), walk: None } => Ok(Self::TraceFile(file)),
            RateTable { trace: None, walk: Some(walk) } => Ok(Self::Walk(Walk {
                min_bps: walk.min.0,
                max_bps: walk.max.0,
                step: walk.step.0,
                factor_max: walk.factor,
                period: walk.period.0,
                seed: walk.seed,
            })),
            _ => Err("a rate table needs either trace or walk".to_owned()),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RateTable {
    trace: Option<String>,
    walk: Option<WalkTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WalkTable {
    min: Bps,
    max: Bps,
    #[serde(default = "default_step")]
    step: Span,
    #[serde(default = "default_factor")]
    factor: f64,
    #[serde(default = "default_period")]
    period: Span,
    seed: u64,
}

fn default_step() -> Span {
    Span(Duration::from_millis(200))
}

fn default_factor() -> f64 {
    1.5
}

fn default_period() -> Span {
    Span(Duration::from_secs(60))
}

#[derive(Deserialize)]
#[serde(try_from = "toml::Value")]
pub(super) struct LossValue(pub(super) Loss);

impl TryFrom<toml::Value> for LossValue {
    type Error = String;

    fn try_from(value: toml::Value) -> Result<Self, String> {
        if let toml::Value::String(text) = value {
            let ratio = parse_ratio(&text).map_err(|error| error.to_string())?;
            return Ok(Self(if ratio > 0.0 { Loss::Random { ratio } } else { Loss::None }));
        }
        let table: LossTable =
            value.try_into().map_err(|error: toml::de::Error| error.message().to_owned())?;
        match table {
            LossTable {
                ratio: Some(ratio),
                burst: Some(burst),
                enter: None,
                leave: None,
                loss_good: None,
                loss_bad: None,
            } if burst >= 1.0 && ratio.0 < 1.0 => Ok(Self(Loss::bursts(ratio.0, burst))),
            LossTable {
                ratio: None,
                burst: None,
                enter: Some(enter),
                leave: Some(leave),
                loss_good,
                loss_bad,
            } => Ok(Self(Loss::GilbertElliott {
                enter: enter.0,
                leave: leave.0,
                loss_good: loss_good.map_or(0.0, |ratio| ratio.0),
                loss_bad: loss_bad.map_or(1.0, |ratio| ratio.0),
            })),
            _ => Err(
                "a loss table needs ratio (below 1) with burst (packets, at least 1), or enter with leave"
                    .to_owned(),
            ),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LossTable {
    ratio: Option<Ratio>,
    burst: Option<f64>,
    enter: Option<Ratio>,
    leave: Option<Ratio>,
    loss_good: Option<Ratio>,
    loss_bad: Option<Ratio>,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(try_from = "toml::Value")]
pub(super) struct JitterValue(pub(super) Spread);

impl TryFrom<toml::Value> for JitterValue {
    type Error = String;

    fn try_from(value: toml::Value) -> Result<Self, String> {
        if let toml::Value::String(text) = value {
            let span = parse_duration(&text).map_err(|error| error.to_string())?;
            return Ok(Self(if span.is_zero() { Spread::None } else { Spread::Uniform { span } }));
        }
        let table: JitterTable =
            value.try_into().map_err(|error: toml::de::Error| error.message().to_owned())?;
        if !(0.0..1.0).contains(&table.correlation) {
            return Err("the correlation of jitter is a number from 0 to 1, less than 1".to_owned());
        }
        Ok(Self(Spread::Normal { deviation: table.deviation.0, correlation: table.correlation }))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JitterTable {
    deviation: Span,
    #[serde(default)]
    correlation: f64,
}

/// The least burst of a policer in bytes: below, no full packet ever passes.
const BURST_BYTES_MIN: u64 = 1_500;

#[derive(Deserialize, Clone, Copy)]
#[serde(try_from = "toml::Value")]
pub(super) struct PoliceValue(pub(super) Option<Police>);

impl TryFrom<toml::Value> for PoliceValue {
    type Error = String;

    fn try_from(value: toml::Value) -> Result<Self, String> {
        if value.as_str() == Some("none") {
            return Ok(Self(None));
        }
        let table: PoliceTable =
            value.try_into().map_err(|error: toml::de::Error| error.message().to_owned())?;
        let (rate_bps, burst_bytes) = (table.rate.0, table.burst.0);
        if rate_bps == 0 || burst_bytes < BURST_BYTES_MIN {
            return Err(format!(
                "a policer needs a rate above 0 and a burst of at least {BURST_BYTES_MIN} B"
            ));
        }
        let per_flow = matches!(table.per, ScopeValue::Flow);
        Ok(Self(Some(Police { rate_bps, burst_bytes, per_flow })))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PoliceTable {
    rate: Bps,
    burst: Size,
    #[serde(default)]
    per: ScopeValue,
}

#[derive(Deserialize, Default, Clone, Copy)]
#[serde(rename_all = "lowercase")]
pub(super) enum ScopeValue {
    #[default]
    Link,
    Flow,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(try_from = "String")]
pub(super) struct QueueValue(pub(super) Limit);

impl TryFrom<String> for QueueValue {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text.ends_with('B') {
            return parse_size_bytes(&text)
                .map(|bytes| Self(Limit::Bytes(bytes)))
                .map_err(|error| error.to_string());
        }
        parse_duration(&text).map(|span| Self(Limit::Time(span))).map_err(|_| {
            format!("'{text}' is not a queue limit: a size such as \"64kB\" or a duration such as \"100ms\"")
        })
    }
}
