//! When the operations of an open loop are due: how the rate changes over time,
//! and whether arrivals are evenly spaced or random.
//!
//! A rate is a function of time made of linear pieces. Its integral counts the
//! operations that are due; operation `n` is due when the integral reaches `n`, or
//! with random arrivals the sum of `n` exponential gaps: a Poisson process whose
//! rate changes, by time change (Çinlar, *Introduction to Stochastic Processes*,
//! 1975, ch. 4.7). The pieces are walked once, from front to back.

use std::f64::consts::TAU;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use serde::Serialize;

/// The highest rate, in operations a second.
const RATE_MAX: u64 = 1_000_000_000;
const STEPS_MAX: usize = 1000;
/// A period of a sine is as many linear pieces: it is right to 0.004 %.
const SINE_PIECES: u32 = 360;
const SECOND_NS: f64 = 1e9;

/// How a rate changes over time, in operations a second of all clients together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rate {
    /// It stays as it is.
    Constant(u64),
    /// It grows or falls evenly from the start of the run to its end.
    Ramp {
        /// At the start.
        from: u64,
        /// At the end.
        to: u64,
    },
    /// Each for as long as the others, in turn.
    Steps(Vec<u64>),
    /// It swings around a mean.
    Sine {
        /// The mean.
        mean: u64,
        /// How far it goes from there, at most as far as the mean.
        swing: u64,
        /// From one rise to the next.
        period: Duration,
    },
    /// It jumps up for a while, again and again.
    Bursts {
        /// In between.
        base: u64,
        /// In a burst.
        burst: u64,
        /// How long a burst lasts.
        length: Duration,
        /// From the start of one to the start of the next.
        period: Duration,
    },
}

/// How arrivals follow each other at a rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Arrivals {
    /// Evenly
    #[default]
    Constant,
    /// At random, each independent of all others: as many users make them
    Poisson,
}

const FORMS: &str = "a rate is a whole number such as 10000, ramp:1000..50000, steps:1000,5000,20000, \
                     sine:10000+-5000/30s (mean, swing, period) or \
                     bursts:1000..20000/2s/30s (base, burst, its length, period)";

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || FORMS.to_owned();
        let number = |text: &str| text.trim().parse::<u64>().map_err(|_| wrong());
        let time = |text: &str| humantime::parse_duration(text.trim()).map_err(|_| wrong());
        let Some((form, rest)) = text.split_once(':') else {
            return Self::Constant(number(text)?).check();
        };
        let rate = match form {
            "ramp" => {
                let (from, to) = rest.split_once("..").ok_or_else(wrong)?;
                Self::Ramp { from: number(from)?, to: number(to)? }
            }
            "steps" => Self::Steps(rest.split(',').map(number).collect::<Result<_, _>>()?),
            "sine" => {
                let (rates, period) = rest.split_once('/').ok_or_else(wrong)?;
                let (mean, swing) = rates.split_once("+-").ok_or_else(wrong)?;
                Self::Sine { mean: number(mean)?, swing: number(swing)?, period: time(period)? }
            }
            "bursts" => {
                let mut parts = rest.split('/');
                let mut next = || parts.next().ok_or_else(wrong);
                let (rates, length, period) = (next()?, next()?, next()?);
                let (base, burst) = rates.split_once("..").ok_or_else(wrong)?;
                if parts.next().is_some() {
                    return Err(wrong());
                }
                let (base, burst) = (number(base)?, number(burst)?);
                Self::Bursts { base, burst, length: time(length)?, period: time(period)? }
            }
            _ => return Err(wrong()),
        };
        rate.check()
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = |time: &Duration| humantime::format_duration(*time).to_string().replace(' ', "");
        match self {
            Self::Constant(rate) => write!(f, "{rate}"),
            Self::Ramp { from, to } => write!(f, "ramp:{from}..{to}"),
            Self::Steps(rates) => {
                let rates: Vec<String> = rates.iter().map(u64::to_string).collect();
                write!(f, "steps:{}", rates.join(","))
            }
            Self::Sine { mean, swing, period } => {
                write!(f, "sine:{mean}+-{swing}/{}", time(period))
            }
            Self::Bursts { base, burst, length, period } => {
                write!(f, "bursts:{base}..{burst}/{}/{}", time(length), time(period))
            }
        }
    }
}

impl Rate {
    fn check(self) -> Result<Self, String> {
        let shortest = Duration::from_millis(1);
        let (highest, fault) = match &self {
            Self::Constant(rate) => (*rate, None),
            Self::Ramp { from, to } => (*from.max(to), None),
            Self::Steps(rates) => (
                rates.iter().copied().max().unwrap_or(0),
                (rates.len() > STEPS_MAX).then_some("there are at most 1000 steps"),
            ),
            Self::Sine { mean, swing, period } => (
                mean.saturating_add(*swing),
                (swing > mean)
                    .then_some("a sine swings no further than its mean: rates are not negative")
                    .or((*period < shortest).then_some("the period must be 1ms or more")),
            ),
            Self::Bursts { base, burst, length, period } => (
                *base.max(burst),
                (length >= period)
                    .then_some("a burst must be shorter than its period")
                    .or((*length < shortest).then_some("a burst must last 1ms or more")),
            ),
        };
        match fault {
            Some(fault) => Err(fault.to_owned()),
            None if highest == 0 => {
                Err("a rate of zero sends nothing: at least 1 operation a second is needed".into())
            }
            None if highest > RATE_MAX => {
                Err(format!("at most {RATE_MAX} operations a second are possible"))
            }
            None => Ok(self),
        }
    }

    /// The operations that are due in a run of this length, on average.
    #[must_use]
    pub fn operations(&self, run: Duration) -> f64 {
        let pieces = self.pieces(run);
        let mut walk = Walk::new(Arc::new(pieces));
        walk.count_at(run.as_nanos() as f64)
    }

    /// The pieces that it is made of, from the start of a run of this length.
    fn pieces(&self, run: Duration) -> Pieces {
        let piece = |time: Duration, from: u64, to: u64| Piece {
            duration_ns: time.as_nanos() as f64,
            from: from as f64 / SECOND_NS,
            to: to as f64 / SECOND_NS,
        };
        match self {
            Self::Constant(rate) => Pieces(vec![piece(run, *rate, *rate)]),
            Self::Ramp { from, to } => Pieces(vec![piece(run, *from, *to)]),
            Self::Steps(rates) => {
                let each = run / rates.len() as u32;
                Pieces(rates.iter().map(|rate| piece(each, *rate, *rate)).collect())
            }
            Self::Sine { mean, swing, period } => {
                let at = |number: u32| {
                    let angle = TAU * f64::from(number) / f64::from(SINE_PIECES);
                    (*mean as f64 + *swing as f64 * angle.sin()).max(0.0) / SECOND_NS
                };
                let duration_ns = period.as_nanos() as f64 / f64::from(SINE_PIECES);
                let piece = |number| Piece { duration_ns, from: at(number), to: at(number + 1) };
                Pieces((0..SINE_PIECES).map(piece).collect())
            }
            Self::Bursts { base, burst, length, period } => {
                Pieces(vec![piece(*length, *burst, *burst), piece(*period - *length, *base, *base)])
            }
        }
    }
}

/// A piece of time in which the rate changes evenly; rates are per nanosecond.
#[derive(Clone, Copy, Debug)]
struct Piece {
    duration_ns: f64,
    from: f64,
    to: f64,
}

impl Piece {
    /// Operations due in the first `time_ns` of it.
    fn count(&self, time_ns: f64) -> f64 {
        let slope = (self.to - self.from) / self.duration_ns;
        time_ns * (self.from + slope * time_ns / 2.0)
    }

    fn count_all(&self) -> f64 {
        self.duration_ns * f64::midpoint(self.from, self.to)
    }

    /// When so many are due, of those it has.
    fn time_ns(&self, count: f64) -> f64 {
        let slope = (self.to - self.from) / self.duration_ns;
        // The solution of `count` that loses no digits where the slope is near 0.
        let root = (self.from * self.from + 2.0 * slope * count).max(0.0).sqrt();
        if count <= 0.0 { 0.0 } else { (2.0 * count / (self.from + root)).min(self.duration_ns) }
    }
}

/// Pieces that begin anew when they have ended.
#[derive(Clone, Debug)]
struct Pieces(Vec<Piece>);

/// A place in a rate's pieces, which only goes forward.
#[derive(Clone, Debug)]
struct Walk {
    pieces: Arc<Pieces>,
    at: usize,
    /// Where the piece begins, and how many operations were due by then.
    start_ns: f64,
    start_count: f64,
}

impl Walk {
    fn new(pieces: Arc<Pieces>) -> Self {
        Self { pieces, at: 0, start_ns: 0.0, start_count: 0.0 }
    }

    fn piece(&self) -> Piece {
        self.pieces.0[self.at]
    }

    fn advance(&mut self) {
        let piece = self.piece();
        self.start_ns += piece.duration_ns;
        self.start_count += piece.count_all();
        self.at = (self.at + 1) % self.pieces.0.len();
    }

    /// When the count is reached. Counts never fall from call to call.
    fn time_ns(&mut self, count: f64) -> f64 {
        while count > self.start_count + self.piece().count_all() {
            self.advance();
        }
        self.start_ns + self.piece().time_ns(count - self.start_count)
    }

    /// How many operations are due by a time, which never falls from call to call.
    fn count_at(&mut self, time_ns: f64) -> f64 {
        while time_ns > self.start_ns + self.piece().duration_ns {
            self.advance();
        }
        self.start_count + self.piece().count(time_ns - self.start_ns)
    }
}

/// When the operations of one client of several are due.
#[derive(Clone, Debug)]
pub struct Schedule {
    rate: Arc<Pieces>,
    /// Where it stays the same and arrivals are even: instants are exact then.
    constant: Option<u64>,
    /// All of them, where they are given.
    given: Option<Arc<[u64]>>,
    arrivals: Arrivals,
    clients: u64,
    client: u64,
    seed: u64,
}

impl Schedule {
    /// Of `client`, of so many that share the rate in a run of this length: evenly, in
    /// turn; at random, each with a part of the rate, drawn by its own seed.
    #[must_use]
    pub fn new(
        rate: &Rate,
        arrivals: Arrivals,
        run: Duration,
        (client, clients): (u64, u64),
        seed: u64,
    ) -> Self {
        let constant = match (rate, arrivals) {
            (Rate::Constant(rate), Arrivals::Constant) => Some(*rate),
            _ => None,
        };
        let (rate, given) = (Arc::new(rate.pieces(run)), None);
        Self { rate, constant, given, arrivals, clients, client, seed }
    }

    /// At these instants, in nanoseconds after the start, in their order.
    #[must_use]
    pub fn given(dues_ns: Arc<[u64]>) -> Self {
        Self {
            rate: Arc::new(Pieces(Vec::new())),
            constant: None,
            given: Some(dues_ns),
            arrivals: Arrivals::Constant,
            clients: 1,
            client: 0,
            seed: 0,
        }
    }

    /// The instants, from the first on.
    #[must_use]
    pub fn dues(&self) -> Dues {
        let mut dues = Dues {
            schedule: self.clone(),
            walk: Walk::new(Arc::clone(&self.rate)),
            rng: fastrand::Rng::with_seed(self.seed),
            number: 0,
            count: 0.0,
            next_ns: 0,
        };
        dues.next_ns = dues.find();
        dues
    }
}

/// The instants at which a client's operations are due, one after the other.
#[derive(Clone, Debug)]
pub struct Dues {
    schedule: Schedule,
    walk: Walk,
    rng: fastrand::Rng,
    /// Of the next one.
    number: u64,
    /// Of all clients' operations that are due at a rate, in Poisson's time.
    count: f64,
    next_ns: u64,
}

impl Dues {
    /// When the next operation is due, in nanoseconds after the start.
    #[must_use]
    pub fn next_ns(&self) -> u64 {
        self.next_ns
    }

    /// It was sent: the one after it is next.
    pub fn sent(&mut self) {
        self.number += 1;
        self.next_ns = self.find();
    }

    /// How many more are due before `elapsed_ns`.
    #[must_use]
    pub fn due_before(mut self, elapsed_ns: u64) -> u64 {
        if let Some(rate) = self.schedule.constant {
            // Turn t is due in time if t * 10^9 / rate, rounded down, is less than
            // the time elapsed.
            let turns = (u128::from(elapsed_ns) * u128::from(rate)).div_ceil(1_000_000_000);
            let own = turns
                .saturating_sub(u128::from(self.schedule.client))
                .div_ceil(u128::from(self.schedule.clients));
            return u64::try_from(own).unwrap_or(u64::MAX).saturating_sub(self.number);
        }
        let before = self.number;
        while self.next_ns < elapsed_ns {
            self.sent();
        }
        self.number - before
    }

    fn find(&mut self) -> u64 {
        let Schedule { clients, client, .. } = self.schedule;
        if let Some(given) = &self.schedule.given {
            return given.get(self.number as usize).copied().unwrap_or(u64::MAX);
        }
        let turn = || u128::from(self.number) * u128::from(clients) + u128::from(client);
        if let Some(rate) = self.schedule.constant {
            return u64::try_from(turn() * 1_000_000_000 / u128::from(rate)).unwrap_or(u64::MAX);
        }
        self.count = match self.schedule.arrivals {
            Arrivals::Constant => turn() as f64,
            // 1 - x is never 0.
            Arrivals::Poisson => self.count - (1.0 - self.rng.f64()).ln() * clients as f64,
        };
        self.walk.time_ns(self.count) as u64
    }
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
