use super::{votes::Candidate, *};

fn thread_local(name: &str, offset: u64, size: u64) -> ThreadLocal {
    ThreadLocal { name: name.as_bytes().to_vec(), offset, size }
}

/// Where a field is, how many polls use it, and how often it was seen in which objects.
type Seen<'a> = (i64, u32, &'a [(i64, u32)]);

fn votes(asked: u32, candidates: &[Seen<'_>], counters: &[i64]) -> Votes {
    let candidate = |&(offset, votes, objects): &Seen<'_>| {
        (offset, Candidate { votes, objects: objects.iter().copied().collect() })
    };
    Votes {
        asked,
        candidates: candidates.iter().map(candidate).collect(),
        counters: counters.iter().copied().collect(),
    }
}

#[test]
fn the_context_is_known_by_its_path_in_all_manglings() {
    for name in [
        "_ZN5tokio7runtime7context7CONTEXT29_$u7b$$u7b$constant$u7d$$u7d$28_$u7b$$u7b$closure$u7d$$u7d$23__RUST_STD_INTERNAL_VAL17h88a581c0b5a7f410E",
        "_ZN5tokio7runtime7context7CONTEXT7__getit5__KEY17h0123456789abcdefE",
        "_RNvNCNKNvNtNtCs1234_5tokio7runtime7context7CONTEXT0s_023___RUST_STD_INTERNAL_VAL",
    ] {
        let all = [
            thread_local("_ZN5tokio4task5local7CURRENT3VALE", 0x70, 24),
            thread_local(name, 0x10, 80),
            thread_local(&name.replace("VAL", "STATE"), 0x60, 1),
        ];
        assert_eq!(named(-0x100, &all), [Named { start: -0xf0, end: -0xa0 }], "{name}");
    }
    assert_eq!(named(-0x100, &[thread_local("_ZN3app7CONTEXT3VALE", 0, 80)]), []);
    assert_eq!(named(i64::MAX, &[thread_local("5tokio7runtime7context7CONTEXT", u64::MAX, 80)]), []);
}

#[test]
fn a_field_that_almost_all_polls_use_is_the_id() {
    let context = -0x130;
    let objects: &[(i64, u32)] = &[(context, 20), (-0x100, 1)];
    for (claim, candidates, counters, expected) in [
        ("all agree", vec![(-0x100, 20, objects)], vec![], Ok(-0x100)),
        ("some were not understood", vec![(-0x100, 16, objects)], vec![], Ok(-0x100)),
        ("others do something else, too", vec![(-0x100, 20, objects), (-0x40, 12, &[])], vec![], Ok(-0x100)),
        ("another is counted", vec![(-0x100, 20, objects), (-0x130, 20, &[])], vec![-0x130], Ok(-0x100)),
        ("few have it", vec![(-0x100, 12, objects)], vec![], Err(Unknown::Unclear)),
        ("two are alike", vec![(-0x100, 20, objects), (-0x40, 19, &[])], vec![], Err(Unknown::Unclear)),
        ("none", vec![], vec![], Err(Unknown::Unseen)),
        ("it is counted itself", vec![(-0x100, 20, objects)], vec![-0x100], Err(Unknown::Unseen)),
    ] {
        let found = decide(&[], &votes(20, &candidates, &counters));
        assert_eq!(found.current_task_id.map(|found| found.offset), expected, "{claim}");
        assert_eq!(found.start.ok().map(|found| found.offset), expected.ok().map(|_| context), "{claim}");
        assert_eq!(found.current_task_tag, None, "{claim}");
    }
}

#[test]
fn an_id_that_may_be_0_has_a_tag_before_it() {
    let found = decide(&[], &votes(14, &[(-0xd0, 14, &[]), (-0xd8, 14, &[]), (-0xc8, 1, &[])], &[]));
    assert_eq!((found.current_task_id.unwrap().offset, found.current_task_tag), (-0xd0, Some(-0xd8)));
    let found = decide(&[], &votes(14, &[(-0xd0, 14, &[]), (-0xd8, 14, &[]), (-0x10, 14, &[])], &[]));
    assert_eq!(found.current_task_id, Err(Unknown::Unclear));
}

#[test]
fn symbols_and_code_support_each_other() {
    let symbol = |start| Named { start, end: start + 80 };
    let code = votes(3, &[(-0x100, 3, &[(-0x130, 3)]), (-0x40, 3, &[])], &[]);
    let evidence = Evidence::SymbolAndCode { votes: 3, asked: 3 };
    let found = decide(&[symbol(-0x130)], &code);
    assert_eq!(found.start, Ok(Found { offset: -0x130, evidence }));
    assert_eq!(found.current_task_id, Ok(Found { offset: -0x100, evidence }));

    let found = decide(&[symbol(-0x200), symbol(-0x130)], &code);
    assert_eq!(found.current_task_id, Ok(Found { offset: -0x100, evidence }), "the code tells which one is used");

    let found = decide(&[symbol(-0x200)], &code);
    assert_eq!(found.start, Ok(Found { offset: -0x200, evidence: Evidence::Symbol }));
    assert_eq!(found.current_task_id, Err(Unknown::Unseen), "what is elsewhere isn't it");
}
