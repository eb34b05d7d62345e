use polletto_common::id::{Tgid, Tid};

use super::*;
use crate::{
    symbols::Symbols,
    timeline::{Extent, Future, Module, Poller, Wait},
    trace::Weights,
};

const PATH: &str = "/bin/app";

/// What slept for a lock with such callstacks, each of one address, and for how long with each: for most with the first.
fn place(future: &Arc<Future>, slept_with: &[(u64, u64)]) -> Place {
    let code = Code::File(Arc::new(Module { path: PATH.into(), build_id: Vec::new(), load_bias: 0 }));
    let frames = |address: u64| vec![(code.clone(), address)];
    let off_cpu_ns = slept_with.iter().map(|(_, slept_ns)| slept_ns).sum();
    let longest = Finding {
        fault: Fault::Slept(Wait::Lock),
        since_ns: 0,
        extent: Extent::Exact,
        poller: Poller::Thread { tgid: Tgid(1), tid: Tid(1) },
        tid: Tid(1),
        task: 7,
        future: Arc::clone(future),
        weights: Weights { off_cpu_ns, ..Weights::default() },
        callstack: Some(slept_with[0].0),
        slept_with: slept_with.to_vec(),
        meanwhile: None,
        convoy: None,
    };
    let others = slept_with[1..].iter().map(|&(address, slept_ns)| (frames(address), slept_ns));
    Place {
        slept_there_ns: longest.slept_there_ns(),
        group: Group { count: 1, total_ns: off_cpu_ns, longest },
        innermost: None,
        own: None,
        krate: None,
        of_crates: OfCrates::default(),
        lines: BTreeMap::new(),
        about: BTreeMap::new(),
        within: BTreeMap::new(),
        frames: frames(slept_with[0].0),
        slept_with: others.collect(),
        held_in: None,
        held_with: Vec::new(),
    }
}

fn located(places: Vec<Place>, names: &[(u64, &str, u32)]) -> Vec<Place> {
    let function = |name: &str, line| Function {
        name: name.to_owned(),
        file: Some("/home/user/app/src/main.rs".to_owned()),
        line: Some(line),
        ..Function::default()
    };
    let symbols = |&(address, name, line)| Symbols { address, functions: vec![function(name, line)] };
    located_by(places, names.iter().map(symbols).collect())
}

fn located_by(places: Vec<Place>, symbols: Vec<Symbols>) -> Vec<Place> {
    let mut summary = FindingSummary {
        threshold: Duration::from_millis(5),
        counts: Vec::new(),
        places,
        runtimes: Vec::new(),
        left_out: LeftOut::default(),
    };
    let categories = Categories::default();
    let mut locator = Locator::new(&mut summary, &categories);
    let path = PATH.to_owned();
    locator.learn(&Answer { path, build_id: None, symbols });
    locator.locate();
    summary.places
}

fn future() -> Arc<Future> {
    Arc::new(Future::example("f"))
}

#[test]
fn what_was_found_in_one_function_is_one_place_by_the_line_that_weighs_most() {
    let future = future();
    let places = [(1, 30), (2, 25), (3, 10), (4, 7)].map(|of| place(&future, &[of])).to_vec();
    let names = [(1, "app::work", 12), (2, "app::work", 14), (3, "app::work", 14), (4, "app::other", 40)];
    let told: Vec<_> = located(places, &names)
        .into_iter()
        .map(|place| (place.own.unwrap().name, place.group.count, place.group.total_ns, place.lines))
        .collect();
    let expected = [
        ("app::work".to_owned(), 3, 65, BTreeMap::from([(12, 30), (14, 35)])),
        ("app::other".to_owned(), 1, 7, BTreeMap::from([(40, 7)])),
    ];
    assert_eq!(told, expected);
    let places = [(1, 30), (2, 25), (3, 10)].map(|of| place(&future, &[of])).to_vec();
    assert_eq!(located(places, &names)[0].own.as_ref().unwrap().line, Some(14));
}

#[test]
fn all_sleeps_of_the_longest_in_one_function_are_slept_there() {
    let names = [(1, "app::work", 12), (2, "app::work", 14), (3, "app::other", 40)];
    let longest = [(1, 30), (2, 25), (3, 10), (9, 5)];
    let places = located(vec![place(&future(), &longest), place(&future(), &[(2, 8)])], &names);
    assert_eq!(places.iter().map(|place| place.slept_there_ns).collect::<Vec<_>>(), [Some(55)]);
    let unnamed = located(vec![place(&future(), &longest)], &[]);
    assert_eq!(unnamed[0].slept_there_ns, Some(30));
}

#[test]
fn what_is_in_no_code_of_the_program_s_own_is_told_by_what_it_is_about_or_by_its_crate() {
    let registry = "/home/user/.cargo/registry/src/index.crates.io-6f17d22bba15001f";
    let of_crate = |name: &str, file: &str, line| Function {
        name: name.to_owned(),
        file: Some(format!("{registry}/{file}")),
        line: Some(line),
        ..Function::default()
    };
    let deflate = |name, line| of_crate(name, "miniz_oxide-0.8.9/src/deflate/core.rs", line);
    let paint = |name, line| of_crate(name, "colours-1.2.0/src/lib.rs", line);
    let names = [
        (1, deflate("miniz_oxide::find_match", 10)),
        (2, deflate("miniz_oxide::flush_block", 20)),
        (3, deflate("miniz_oxide::find_match", 11)),
        (4, of_crate("flate2::Compress::run", "flate2-1.1.2/src/mem.rs", 30)),
        (5, paint("colours::mix", 40)),
        (6, paint("colours::blend", 50)),
    ];
    let one = future();
    let places = [(1, 30), (2, 25), (3, 10), (4, 36), (5, 9), (6, 8)].map(|of| place(&one, &[of])).to_vec();
    let symbols = names.map(|(address, function)| Symbols { address, functions: vec![function] });
    let told: Vec<_> = located_by(places, symbols.to_vec())
        .into_iter()
        .map(|place| {
            let category = place.category().map(str::to_owned);
            let innermost = place.innermost.expect("it has a name");
            (place.group.count, category, place.krate.expect("it is of one"), innermost.name, innermost.line)
        })
        .collect();
    let told: Vec<_> = told
        .iter()
        .map(|(count, category, krate, name, line)| (*count, category.as_deref(), &**krate, &**name, *line))
        .collect();
    assert_eq!(
        told,
        [
            (4, Some("compression"), "miniz_oxide", "miniz_oxide::find_match", Some(10)),
            (2, None, "colours", "colours::mix", Some(40)),
        ]
    );
}

#[test]
fn what_is_in_functions_of_the_c_library_alone_is_one_place_for_each_future() {
    let of_c = |address, name: &str| {
        let file = Some("./string/memcpy.c".to_owned());
        let function = Function { name: name.to_owned(), file, line: Some(48), ..Function::default() };
        Symbols { address, functions: vec![function] }
    };
    let symbols = || vec![of_c(1, "memcpy"), of_c(2, "clock_gettime"), of_c(3, "clock_gettime")];
    let one = future();
    for (weights, expected) in [([30, 25, 10, 20], Some("clock_gettime")), ([30, 5, 10, 40], None)] {
        let places = weights.iter().zip(1..).map(|(&ns, address)| place(&one, &[(address, ns)])).collect();
        let [place] = &located_by(places, symbols())[..] else { panic!("one place") };
        let told = place.innermost.as_ref().map(|function| (&*function.name, function.line));
        assert_eq!((place.group.count, told, place.own.is_some()), (4, expected.map(|name| (name, None)), false));
        assert!(place.lines.is_empty(), "{:?}", place.lines);
    }
}

#[test]
fn what_is_known_to_be_the_program_s_own_comes_before_what_may_be() {
    let function = |name: &str, file: Option<&str>| Function {
        name: name.to_owned(),
        file: file.map(str::to_owned),
        line: file.map(|_| 7),
        ..Function::default()
    };
    let functions = vec![function("colours::mix", None), function("app::work", Some("/home/user/app/src/main.rs"))];
    for (functions, expected) in [(functions.clone(), "app::work"), (functions[..1].to_vec(), "colours::mix")] {
        let places = located_by(vec![place(&future(), &[(1, 30)])], vec![Symbols { address: 1, functions }]);
        assert_eq!(places[0].own.as_ref().map(|own| &*own.name), Some(expected));
    }
}

#[test]
fn what_has_no_name_is_one_place_for_each_future() {
    let [one, other] = ["f", "g"].map(|name| Arc::new(Future::example(name)));
    let places = vec![place(&one, &[(1, 30)]), place(&one, &[(2, 25)]), place(&other, &[(1, 10)])];
    let told: Vec<_> = located(places, &[])
        .into_iter()
        .map(|place| (place.group.longest.future.name.clone(), place.group.count, place.slept_there_ns))
        .collect();
    assert_eq!(told, [("f".to_owned(), 2, Some(30)), ("g".to_owned(), 1, Some(10))]);
}
