use super::*;

const RUN: Duration = Duration::from_secs(10);

/// All instants before the end of the run, of all of so many clients.
fn dues(rate: &str, arrivals: Arrivals, clients: u64) -> Vec<u64> {
    let rate: Rate = rate.parse().unwrap();
    let of_client = |client| {
        let schedule = Schedule::new(&rate, arrivals, RUN, (client, clients), 7 + client);
        let mut dues = schedule.dues();
        let mut all = Vec::new();
        while dues.next_ns() < RUN.as_nanos() as u64 {
            all.push(dues.next_ns());
            dues.sent();
        }
        assert!(all.is_sorted());
        assert_eq!(schedule.dues().due_before(RUN.as_nanos() as u64), all.len() as u64);
        all
    };
    let mut all: Vec<u64> = (0..clients).flat_map(of_client).collect();
    all.sort_unstable();
    all
}

/// How many are due in each second.
fn by_second(dues: &[u64]) -> [usize; 10] {
    let mut seconds = [0; 10];
    dues.iter().for_each(|due| seconds[(due / 1_000_000_000) as usize] += 1);
    seconds
}

#[test]
fn evenly_and_in_turn() {
    for clients in [1, 3] {
        let expected: Vec<u64> = (0..70).map(|turn| turn * 1_000_000_000 / 7).collect();
        assert_eq!(dues("7", Arrivals::Constant, clients), expected);
    }
}

#[test]
fn each_form_has_its_rate_at_each_time() {
    let near = |found: &[u64], expected: [usize; 10]| {
        let found = by_second(found);
        let is_near = |(found, expected): (&usize, &usize)| found.abs_diff(*expected) <= 1;
        assert!(found.iter().zip(&expected).all(is_near), "{found:?}, not {expected:?}");
    };
    for clients in [1, 4] {
        let dues = |rate| dues(rate, Arrivals::Constant, clients);
        // In second n the mean of a ramp from 0 to 1000 is 100 n + 50.
        near(&dues("ramp:0..1000"), std::array::from_fn(|n| 100 * n + 50));
        near(&dues("ramp:1000..0"), std::array::from_fn(|n| 950 - 100 * n));
        let steps = [100, 100, 0, 0, 700, 700, 30, 30, 1, 1];
        near(&dues("steps:100,0,700,30,1"), steps);
        let bursts = [500, 500, 20, 20, 20, 500, 500, 20, 20, 20];
        near(&dues("bursts:20..500/2s/5s"), bursts);
        // The integral of a sine over each tenth of its period.
        let sine = std::array::from_fn(|n| {
            let cos = |n: usize| (TAU * n as f64 / 10.0).cos();
            (1000.0 + 500.0 * (cos(n) - cos(n + 1)) * 10.0 / TAU).round() as usize
        });
        near(&dues("sine:1000+-500/10s"), sine);
    }
}

#[test]
fn what_is_due_adds_up() {
    let forms = [
        ("1000", 10_000.0),
        ("ramp:500..1500", 10_000.0),
        ("steps:100,300", 2000.0),
        ("sine:700+-700/2s", 7000.0),
        ("bursts:10..100/1s/4s", 3.0 * 100.0 + 7.0 * 10.0),
    ];
    for (text, expected) in forms {
        let rate: Rate = text.parse().unwrap();
        let found = rate.operations(RUN);
        assert!((found - expected).abs() < 0.01, "{text}: {found}");
    }
}

/// The greatest distance between two distribution functions (Kolmogorov, Smirnov).
fn distance(gaps: &[f64], cumulative: impl Fn(f64) -> f64) -> f64 {
    let mut gaps = gaps.to_vec();
    gaps.sort_by(f64::total_cmp);
    let count = gaps.len() as f64;
    let at = |(i, gap): (usize, &f64)| {
        let exact = cumulative(*gap);
        (exact - i as f64 / count).abs().max((exact - (i + 1) as f64 / count).abs())
    };
    gaps.iter().enumerate().map(at).fold(0.0, f64::max)
}

#[test]
fn random_gaps_are_exponential() {
    for clients in [1, 5] {
        let dues = dues("5000", Arrivals::Poisson, clients);
        // The mean is 50,000, its standard deviation 224.
        assert!(dues.len().abs_diff(50_000) < 800, "{}", dues.len());
        let gaps: Vec<f64> = dues.windows(2).map(|two| (two[1] - two[0]) as f64).collect();
        let distance = distance(&gaps, |gap| 1.0 - (-gap * 5000.0 / 1e9).exp());
        // Beyond that in one case of a thousand.
        assert!(distance < 1.95 / (gaps.len() as f64).sqrt(), "{distance}");
        // As many in each millisecond as chance has it: mean and variance are 5.
        let mut counts = vec![0_u32; 10_000];
        dues.iter().for_each(|due| counts[(due / 1_000_000) as usize] += 1);
        let square = |count: &u32| (f64::from(*count) - 5.0).powi(2);
        let variance = counts.iter().map(square).sum::<f64>() / 10_000.0;
        assert!((variance - 5.0).abs() < 0.3, "{variance}");
        // Not the same again by another seed.
        let schedule = |seed| {
            Schedule::new(&Rate::Constant(5000), Arrivals::Poisson, RUN, (0, 1), seed).dues()
        };
        assert_ne!(schedule(1).next_ns(), schedule(2).next_ns());
        assert_eq!(schedule(1).next_ns(), schedule(1).next_ns());
    }
}

#[test]
fn random_arrivals_follow_a_rate_that_changes() {
    let found = by_second(&dues("ramp:0..10000", Arrivals::Poisson, 2));
    for (n, found) in found.into_iter().enumerate() {
        let expected = 1000.0 * n as f64 + 500.0;
        assert!((found as f64 - expected).abs() < 4.0 * expected.sqrt(), "{n}: {found}");
    }
}

#[test]
fn what_is_left_is_counted() {
    for (rate, arrivals) in [
        ("1000", Arrivals::Constant),
        ("1000", Arrivals::Poisson),
        ("ramp:100..1900", Arrivals::Constant),
    ] {
        let rate: Rate = rate.parse().unwrap();
        let mut dues = Schedule::new(&rate, arrivals, RUN, (0, 1), 3).dues();
        let all = dues.clone().due_before(5_000_000_000);
        (0..100).for_each(|_| dues.sent());
        assert_eq!(dues.clone().due_before(5_000_000_000), all - 100);
        assert_eq!(dues.due_before(1), 0, "nothing that was sent");
    }
}

#[test]
fn rates_are_read_as_they_are_written() {
    for text in [
        "10000",
        "ramp:1000..50000",
        "steps:1000,0,20000",
        "sine:10000+-5000/30s",
        "bursts:1000..20000/2s/30s",
        "bursts:0..1/1ms/1m",
    ] {
        let rate: Rate = text.parse().unwrap();
        assert_eq!(rate.to_string(), text);
    }
    let refused = [
        ("", "a rate is"),
        ("0", "rate of zero"),
        ("-5", "a rate is"),
        ("1.5", "a rate is"),
        ("1000000001", "at most"),
        ("ramp:0..0", "rate of zero"),
        ("ramp:5", "a rate is"),
        ("steps:", "a rate is"),
        ("steps:0,0", "rate of zero"),
        ("sine:10+-11/1s", "swings no further"),
        ("sine:10+-5/0s", "1ms or more"),
        ("sine:10+-5", "a rate is"),
        ("sine:18446744073709551615+-1/1s", "at most"),
        ("bursts:1..2/5s/5s", "shorter than its period"),
        ("bursts:1..2/0s/5s", "1ms or more"),
        ("bursts:1..2/1s/5s/6s", "a rate is"),
        ("waves:1..2", "a rate is"),
    ];
    for (text, expected) in refused {
        let refused = text.parse::<Rate>().unwrap_err();
        assert!(refused.contains(expected), "{text:?}: {refused}");
    }
    let steps = format!("steps:{}", ["1"; 1001].join(","));
    assert!(steps.parse::<Rate>().unwrap_err().contains("1000 steps"));
}
