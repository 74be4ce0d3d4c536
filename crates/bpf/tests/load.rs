//! Loading programs, running them, and reading and writing maps.

mod support;

use millrace_bpf::insn::{Alu, Cond, Helper, Reg::*, Size};
use millrace_bpf::program::{LoadOptions, ProgramInfo, XdpProgram, action};
use millrace_bpf::{
    Assembler, Error, Ingress, Map, MapKind, MapSpec, PerCpuMap, Program, RunStatistics, TypedMap,
    Update,
};

fn ends_with(action: u32) -> Program {
    let mut asm = Assembler::new();
    asm.mov(R0, action as i32).exit();
    asm.finish().unwrap()
}

#[test]
fn refused_program_brings_the_log() {
    support::in_namespace("refused_program_brings_the_log", || {
        let mut asm = Assembler::new();
        asm.load(Size::Word, R2, R1, 0).load(Size::Byte, R0, R2, 0).exit();
        let program = asm.finish().unwrap();
        let error = XdpProgram::load(&program, &LoadOptions::named("unchecked")).unwrap_err();
        let text = error.to_string();
        let Error::Verifier { errno, log, .. } = error else { panic!("{text}") };
        assert_eq!(errno, libc::EACCES);
        assert!(log.contains("invalid access to packet"), "{log}");
        assert!(text.contains("unchecked") && text.contains("invalid access"), "{text}");
    });
}

#[test]
fn log_grows_until_it_fits() {
    support::in_namespace("log_grows_until_it_fits", || {
        let mut asm = Assembler::new();
        asm.call(Helper::GET_PRANDOM_U32);
        for _ in 0..20_000 {
            asm.alu(Alu::Add, R0, 3);
        }
        asm.mov(R0, R9).exit();
        let program = asm.finish().unwrap();
        let error = XdpProgram::load(&program, &LoadOptions::named("long")).unwrap_err();
        let Error::Verifier { errno, log, .. } = error else { panic!("{error}") };
        assert_ne!(errno, libc::ENOSPC);
        assert!(log.len() > 64 << 10, "{} bytes", log.len());
        assert!(log.contains("R9 !read_ok"), "{}", &log[log.len() - 500..]);
    });
}

#[test]
fn program_returns_what_it_says_and_has_its_name() {
    support::in_namespace("program_returns_what_it_says_and_has_its_name", || {
        for wanted in [action::ABORTED, action::DROP, action::PASS, action::TX] {
            let options = LoadOptions::named("mr_constant");
            let program = XdpProgram::load(&ends_with(wanted), &options).unwrap();
            let run = program.test_run(&[0x5a; 64], 1).unwrap();
            assert_eq!(run.action, wanted);
            assert_eq!(run.frame, [0x5a; 64]);
            let info = program.info().unwrap();
            assert_eq!(info.name, "mr_constant");
            assert_eq!(ProgramInfo::by_id(info.id).unwrap(), Some(info));
        }
    });
}

#[test]
fn dropped_program_is_gone() {
    support::in_namespace("dropped_program_is_gone", || {
        let options = LoadOptions::named("mr_short_lived");
        let program = XdpProgram::load(&ends_with(action::PASS), &options).unwrap();
        let id = program.info().unwrap().id;
        drop(program);
        assert_eq!(ProgramInfo::by_id(id).unwrap(), None);
    });
}

#[test]
fn program_changes_the_frame() {
    support::in_namespace("program_changes_the_frame", || {
        let mut asm = Assembler::new();
        let out = asm.label();
        asm.load(Size::Word, R2, R1, 0).load(Size::Word, R3, R1, 4);
        asm.mov(R4, R2).alu(Alu::Add, R4, 16).jump_if(Cond::Gt, R4, R3, out);
        asm.load(Size::Half, R5, R2, 12).network_order(R5, 16).alu32(Alu::Add, R5, 1);
        asm.network_order(R5, 16).store(Size::Half, R2, 12, R5).store(Size::Byte, R2, 14, 0x7f);
        asm.bind(out).mov(R0, action::PASS as i32).exit();
        let program = asm.finish().unwrap();
        let program = XdpProgram::load(&program, &LoadOptions::named("mr_edit")).unwrap();
        let mut frame = [0u8; 60];
        frame[12..14].copy_from_slice(&[0x12, 0xff]);
        let run = program.test_run(&frame, 1).unwrap();
        assert_eq!(run.frame[12..15], [0x13, 0x00, 0x7f]);
    });
}

#[test]
fn too_short_a_frame_is_an_error() {
    support::in_namespace("too_short_a_frame_is_an_error", || {
        let options = LoadOptions::named("mr_short");
        let program = XdpProgram::load(&ends_with(action::PASS), &options).unwrap();
        let error = program.test_run(&[0; 13], 1).unwrap_err();
        assert_eq!(error.errno(), Some(libc::EINVAL));
        assert!(error.to_string().contains("13 bytes"), "{error}");
    });
}

#[test]
fn hash_map_keeps_what_was_put() {
    support::in_namespace("hash_map_keeps_what_was_put", || {
        let map = TypedMap::<u32, u64>::create("mr_test", MapKind::Hash, 8).unwrap();
        assert_eq!(map.get(&1).unwrap(), None);
        for key in 0..8 {
            map.set(&key, &(u64::from(key) << 40)).unwrap();
        }
        assert_eq!(map.set(&8, &0).unwrap_err().errno(), Some(libc::E2BIG));
        let mut keys = map.keys().unwrap();
        keys.sort_unstable();
        assert_eq!(keys, (0..8).collect::<Vec<_>>());
        assert_eq!(map.get(&7).unwrap(), Some(7 << 40));
        assert!(map.remove(&7).unwrap());
        assert!(!map.remove(&7).unwrap());
    });
}

#[test]
fn update_modes_are_kept() {
    support::in_namespace("update_modes_are_kept", || {
        let map = TypedMap::<u32, u32>::create("mr_test", MapKind::LruHash, 64).unwrap();
        let (key, value) = (1u32.to_ne_bytes(), 2u32.to_ne_bytes());
        let error = map.map().update(&key, &value, Update::Replace).unwrap_err();
        assert_eq!(error.errno(), Some(libc::ENOENT));
        map.map().update(&key, &value, Update::Insert).unwrap();
        let error = map.map().update(&key, &value, Update::Insert).unwrap_err();
        assert_eq!(error.errno(), Some(libc::EEXIST));
        assert!(error.to_string().contains("mr_test"), "{error}");
    });
}

#[test]
fn wrong_lengths_never_reach_the_kernel() {
    support::in_namespace("wrong_lengths_never_reach_the_kernel", || {
        let spec = MapSpec {
            name: "mr_test",
            kind: MapKind::PerCpuArray,
            key_size: 4,
            value_size: 12,
            max_entries: 1,
            flags: 0,
        };
        let map = Map::create(&spec).unwrap();
        assert_eq!(map.value_len() % 16, 0);
        let mut value = vec![0; map.value_len()];
        assert!(map.lookup(&[0; 4], &mut value).unwrap());
        assert!(matches!(map.lookup(&[0; 4], &mut [0; 12]), Err(Error::Argument(_))));
        assert!(matches!(map.lookup(&[0; 3], &mut value), Err(Error::Argument(_))));
        assert!(matches!(map.delete(&[]), Err(Error::Argument(_))));
    });
}

#[test]
fn lpm_trie_finds_the_longest_prefix() {
    support::in_namespace("lpm_trie_finds_the_longest_prefix", || {
        let spec = MapSpec {
            name: "mr_routes",
            kind: MapKind::LpmTrie,
            key_size: 8,
            value_size: 4,
            max_entries: 16,
            flags: MapSpec::NO_PREALLOC,
        };
        let map = Map::create(&spec).unwrap();
        let key = |len: u32, address: [u8; 4]| [len.to_ne_bytes(), address].concat();
        map.update(&key(8, [10, 0, 0, 0]), &[1; 4], Update::Any).unwrap();
        map.update(&key(24, [10, 1, 2, 0]), &[2; 4], Update::Any).unwrap();
        let mut value = [0; 4];
        assert!(map.lookup(&key(32, [10, 1, 2, 3]), &mut value).unwrap());
        assert_eq!(value, [2; 4]);
        assert!(map.lookup(&key(32, [10, 9, 9, 9]), &mut value).unwrap());
        assert_eq!(value, [1; 4]);
        assert!(!map.lookup(&key(32, [11, 0, 0, 1]), &mut value).unwrap());
    });
}

#[test]
fn every_kind_of_map_can_be_made() {
    support::in_namespace("every_kind_of_map_can_be_made", || {
        use MapKind::*;
        for (kind, key_size, value_size, max_entries, flags) in [
            (Hash, 4, 8, 4, 0),
            (Array, 4, 8, 4, 0),
            (PerCpuHash, 4, 8, 4, 0),
            (PerCpuArray, 4, 8, 4, 0),
            (LruHash, 4, 8, 64, 0),
            (LruPerCpuHash, 4, 8, 64, 0),
            (LpmTrie, 8, 4, 4, MapSpec::NO_PREALLOC),
            (DevMap, 4, 4, 4, 0),
            (CpuMap, 4, 4, 1, 0),
            (XskMap, 4, 4, 4, 0),
            (Queue, 0, 8, 4, 0),
            (Stack, 0, 8, 4, 0),
            (DevMapHash, 4, 4, 4, 0),
            (RingBuffer, 0, 0, 4096, 0),
        ] {
            let spec = MapSpec { name: "mr_kind", kind, key_size, value_size, max_entries, flags };
            Map::create(&spec).unwrap_or_else(|error| panic!("{kind:?}: {error}"));
        }
        let error = TypedMap::<u32, u32>::create("mr_bad", Array, 0).unwrap_err();
        assert_eq!(error.errno(), Some(libc::EINVAL));
        assert!(TypedMap::<u32, u32>::create("mr_bad", PerCpuArray, 1).is_err());
        assert!(PerCpuMap::<u32, u32>::create("mr_bad", Array, 1).is_err());
    });
}

#[test]
fn program_counts_in_a_per_cpu_map() {
    support::in_namespace("program_counts_in_a_per_cpu_map", || {
        let map = PerCpuMap::<u32, u64>::create("mr_count", MapKind::PerCpuArray, 1).unwrap();
        let mut asm = Assembler::new();
        let out = asm.label();
        asm.store(Size::Word, R10, -4, 0).load_map(R1, &map).mov(R2, R10).alu(Alu::Add, R2, -4);
        asm.call(Helper::MAP_LOOKUP_ELEM).jump_if(Cond::Eq, R0, 0, out);
        asm.load(Size::Double, R1, R0, 0).alu(Alu::Add, R1, 1).store(Size::Double, R0, 0, R1);
        asm.bind(out).mov(R0, action::PASS as i32).exit();
        let program = asm.finish().unwrap();
        let program = XdpProgram::load(&program, &LoadOptions::named("mr_count")).unwrap();
        program.test_run(&[0; 64], 1000).unwrap();
        let counts = map.get(&0).unwrap().unwrap();
        assert_eq!(counts.iter().sum::<u64>(), 1000);
    });
}

#[test]
fn frames_come_in_where_they_are_said_to() {
    support::in_namespace("frames_come_in_where_they_are_said_to", || {
        // Returns the interface's index, which is 1 for loopback and an action too.
        let mut asm = Assembler::new();
        asm.load(Size::Word, R0, R1, 12).exit();
        let program = asm.finish().unwrap();
        let program = XdpProgram::load(&program, &LoadOptions::named("mr_ingress")).unwrap();
        support::ip("link set lo up");
        let mut out = vec![7; 3];
        let from = Some(Ingress { ifindex: support::index("lo"), queue: 0 });
        for frame in [[0x11; 60], [0x22; 60]] {
            let (action, _) = program.test_run_into(&frame, &mut out, 1, from).unwrap();
            assert_eq!(action, 1);
            assert_eq!(out, frame);
        }
        let nowhere = Some(Ingress { ifindex: 4242, queue: 0 });
        let error = program.test_run_into(&[0; 60], &mut out, 1, nowhere).unwrap_err();
        assert!(error.errno().is_some(), "{error}");
    });
}

#[test]
fn runs_are_counted_while_that_is_asked_for() {
    support::in_namespace("runs_are_counted_while_that_is_asked_for", || {
        let options = LoadOptions::named("mr_counted");
        let program = XdpProgram::load(&ends_with(action::PASS), &options).unwrap();
        let enabled = RunStatistics::enable().unwrap();
        let before = program.info().unwrap();
        assert_eq!(before.run_count, 0);
        assert_eq!(before.translated_len, 16);
        assert_eq!(before.verified, 2);
        assert!(before.loaded_at > 0);
        drop(enabled);
    });
}

#[test]
fn pinned_map_is_found_again() {
    let test = "pinned_map_is_found_again";
    support::in_namespace(test, move || {
        let folder = match support::bpf_file_system() {
            Ok(root) => root.join("mr-pin-map"),
            Err(why) => return support::skip(test, &why),
        };
        std::fs::create_dir(&folder).unwrap();
        let spec = |entries| MapSpec {
            name: "mr_pinned",
            kind: MapKind::Hash,
            key_size: 4,
            value_size: 8,
            max_entries: entries,
            flags: 0,
        };
        let path = folder.join("map");
        let map = Map::create(&spec(8)).unwrap();
        map.update(&[1; 4], &[2; 8], Update::Any).unwrap();
        map.pin(&path).unwrap();
        let taken = map.pin(&path).unwrap_err();
        assert_eq!(taken.errno(), Some(libc::EEXIST));
        let id = map.id().unwrap();
        drop(map);
        let again = Map::open(&path, &spec(8)).unwrap();
        assert_eq!(again.id().unwrap(), id);
        let mut value = [0; 8];
        assert!(again.lookup(&[1; 4], &mut value).unwrap());
        assert_eq!(value, [2; 8]);
        let error = Map::open(&path, &spec(9)).unwrap_err();
        assert!(error.to_string().contains("8 entries; mr_pinned was declared"), "{error}");
        let error = Map::open(&folder.join("nothing"), &spec(8)).unwrap_err();
        assert_eq!(error.errno(), Some(libc::ENOENT));

        let options = LoadOptions::named("mr_pinned");
        let program = XdpProgram::load(&ends_with(action::PASS), &options).unwrap();
        program.pin(&folder.join("program")).unwrap();
        let error = Map::open(&folder.join("program"), &spec(8)).unwrap_err();
        assert!(error.to_string().contains("no BPF map"), "{error}");
        std::fs::remove_dir_all(&folder).unwrap();

        let error = program.pin(&std::env::temp_dir().join("mr-no-bpffs")).unwrap_err();
        assert!(error.to_string().contains("BPF file system"), "{error}");
    });
}

#[test]
fn kinds_are_found_by_their_numbers() {
    for number in 0..64 {
        if let Some(kind) = MapKind::from_number(number) {
            assert_eq!(kind as u32, number);
        }
    }
    assert_eq!(MapKind::from_number(11), Some(MapKind::LpmTrie));
    assert_eq!(MapKind::from_number(0), None);
}
