//! Units that are written here, byte by byte.

use gimli::{Dwarf, SectionId, UnitOffset, UnitRef};

use super::*;

/// What an entry is in these tests, by its abbreviation: all have a name and may have others in them.
#[derive(Clone, Copy)]
enum Kind {
    Namespace = 2,
    Structure = 3,
}

/// What stands before a unit's contents: its header, and the entry that is the unit itself, bytes.
const BEFORE_CONTENTS: usize = 12;

/// A unit of DWARF 4 with these bytes as its contents.
fn with_unit<T>(contents: &[u8], use_it: impl FnOnce(UnitRef<'_, Slice<'_>>) -> T) -> T {
    const NAME: [u8; 2] = [gimli::DW_AT_name.0 as u8, gimli::DW_FORM_string.0 as u8];
    const LINE: [u8; 2] = [gimli::DW_AT_decl_line.0 as u8, gimli::DW_FORM_data1.0 as u8];
    let abbreviation = |code: u8, tag: gimli::DwTag, attributes: &[[u8; 2]]| {
        let tag = u8::try_from(tag.0).unwrap();
        [&[code, tag, gimli::DW_CHILDREN_yes.0], attributes.as_flattened(), &[0, 0]].concat()
    };
    let abbreviations = [
        abbreviation(1, gimli::DW_TAG_compile_unit, &[]),
        abbreviation(Kind::Namespace as u8, gimli::DW_TAG_namespace, &[LINE, NAME]),
        abbreviation(Kind::Structure as u8, gimli::DW_TAG_structure_type, &[NAME, LINE]),
        vec![0],
    ]
    .concat();
    // The version, where the abbreviations are, the size of addresses, and the entry of the unit itself.
    let unit = [&[4, 0, 0, 0, 0, 0, 8, 1], contents, &[0]].concat();
    let info = [&u32::try_from(unit.len()).unwrap().to_le_bytes(), &unit[..]].concat();
    let section = |id| match id {
        SectionId::DebugInfo => &info[..],
        SectionId::DebugAbbrev => &abbreviations,
        _ => &[],
    };
    let dwarf = Dwarf::load(|id| Ok::<_, gimli::Error>(Slice::new(section(id), gimli::LittleEndian))).unwrap();
    let units = units(&dwarf).unwrap();
    use_it(UnitRef::new(&dwarf, &units[0]))
}

/// An entry with others in it.
fn entry(kind: Kind, name: &str, within: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = vec![kind as u8];
    match kind {
        Kind::Namespace => bytes.extend([b"\x07", name.as_bytes(), b"\0"].concat()),
        Kind::Structure => bytes.extend([name.as_bytes(), b"\0\x07"].concat()),
    }
    bytes.extend(within.concat());
    bytes.push(0);
    bytes
}

fn namespace(name: &str, within: &[Vec<u8>]) -> Vec<u8> {
    entry(Kind::Namespace, name, within)
}

fn structure(name: &str, within: &[Vec<u8>]) -> Vec<u8> {
    entry(Kind::Structure, name, within)
}

/// A type as it is met: its name, its place, and what stands for the namespaces that it is in.
type Met = (String, UnitOffset, PathHash);

/// What the entry that was met last is called.
fn name_of(entries: &mut Entries<'_, '_>) -> Result<String, gimli::Error> {
    let (unit, mut name) = (entries.unit(), String::new());
    entries.read_attributes(|attribute| {
        if attribute.name() == gimli::DW_AT_name {
            name = String::from_utf8_lossy(text(unit, attribute.value()).unwrap()).into_owned();
        }
        Ok(())
    })?;
    Ok(name)
}

/// Reads all that can be read: the types in their order, and all namespaces.
fn read<'a>(unit: UnitRef<'_, Slice<'a>>) -> (Vec<Met>, Namespaces<'a>) {
    let mut entries = Entries::of(unit).unwrap();
    let mut met = Vec::new();
    while let Ok(Some(at)) = entries.next() {
        if at.tag == gimli::DW_TAG_structure_type {
            let Ok(name) = name_of(&mut entries) else { break };
            met.push((name, at.offset, entries.path()));
        }
    }
    (met, entries.into_namespaces())
}

/// Types in namespaces, in one another, before and behind.
fn example() -> Vec<u8> {
    let inner = namespace("inner", &[structure("A", &[structure("InA", &[])]), structure("B", &[])]);
    let outer = namespace("outer", &[structure("Before", &[]), inner, structure("Behind", &[])]);
    let again = namespace("outer", &[namespace("other", &[structure("C", &[])])]);
    [structure("First", &[]), outer, structure("Between", &[]), again, structure("Last", &[])].concat()
}

#[test]
fn types_are_in_the_namespaces_around_them() {
    let expected: [(&str, &[&str]); 9] = [
        ("First", &[]),
        ("Before", &["outer"]),
        ("A", &["outer", "inner"]),
        ("InA", &["outer", "inner"]),
        ("B", &["outer", "inner"]),
        ("Behind", &["outer"]),
        ("Between", &[]),
        ("C", &["outer", "other"]),
        ("Last", &[]),
    ];
    let met = with_unit(&example(), |unit| read(unit).0);
    let met: Vec<_> = met.iter().map(|(name, _, path)| (name.as_str(), *path)).collect();
    assert_eq!(met, expected.map(|(name, path)| (name, PathHash::of(path.iter().map(|name| name.as_bytes())))));
}

#[test]
fn a_place_is_in_the_same_namespaces_afterwards() {
    with_unit(&example(), |unit| {
        let (met, namespaces) = read(unit);
        assert_eq!(met.len(), 9);
        for (name, place, path) in met {
            assert_eq!(PathHash::of(namespaces.around(place)), path, "{name}");
        }
    });
}

#[test]
fn what_is_in_a_type_is_not_in_its_namespaces_alone() {
    let in_inner = with_unit(&example(), |unit| {
        let mut entries = Entries::of(unit).unwrap();
        let mut found = Vec::new();
        while let Some(at) = entries.next().unwrap() {
            // What others are called is not read.
            if entries.is_in(&["outer", "inner"]) {
                assert!(
                    !entries.is_in(&["outer"]) && !entries.is_in(&["inner"]) && !entries.is_in(&["inner", "outer"])
                );
                let name = name_of(&mut entries).unwrap();
                found.push((name, at.tag, at.depth));
            }
        }
        found
    });
    let types = ["A", "B"].map(|name| (name.to_owned(), gimli::DW_TAG_structure_type, 3));
    assert_eq!(in_inner, types);
}

#[test]
fn what_was_read_before_damage_counts() {
    let whole = example();
    let all = with_unit(&whole, |unit| read(unit).0);
    for (count, (_, place, _)) in all.iter().enumerate() {
        // No entry is of this kind.
        let damaged = [&whole[..place.0 - BEFORE_CONTENTS], &[0x7f]].concat();
        with_unit(&damaged, |unit| {
            let (met, namespaces) = read(unit);
            assert_eq!(met, all[..count]);
            assert!(met.iter().all(|(_, place, path)| PathHash::of(namespaces.around(*place)) == *path));
        });
    }
}

#[test]
fn namespaces_may_be_nested_without_end_and_ended_too_often() {
    const LEVELS: usize = 1 << 17;
    let nested: Vec<u8> = [Kind::Namespace as u8, 7, b'n', 0].repeat(LEVELS);
    let within = structure("Deep", &[]).repeat(LEVELS);
    let bytes = [nested, within, vec![0; 2 * LEVELS], structure("Outside", &[])].concat();
    with_unit(&bytes, |unit| {
        // What the way to each type took would take minutes.
        let (met, namespaces) = read(unit);
        assert_eq!(met.len(), LEVELS + 1);
        let [(_, deep, path), .., (_, outside, nothing)] = &met[..] else { unreachable!("there are more") };
        assert_eq!((namespaces.around(*deep).len(), *path), (LEVELS, PathHash::of([&b"n"[..]].repeat(LEVELS))));
        assert_eq!((namespaces.around(*outside).len(), *nothing), (0, PathHash::default()));
    });
}

#[test]
fn what_a_name_is_generic_over_does_not_count() {
    let of = |names: [&str; 2]| PathHash::of(names.map(str::as_bytes));
    assert_eq!(of(["a", "b<T>"]), of(["a", "b<U>"]));
    assert_eq!(of(["a<T>", "b"]), of(["a", "b"]));
    assert_ne!(of(["a", "b"]), of(["b", "a"]));
    assert_ne!(of(["a", "b"]), of(["", "ab"]));
}
