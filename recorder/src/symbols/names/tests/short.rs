use super::super::{crates_of, has_arguments, short};

#[track_caller]
fn check(cases: &[(&str, &str)]) {
    for (full, expected) in cases {
        assert_eq!(short(full), *expected, "of {full}");
    }
}

/// Of polletto's own tests, the demo server, rustc, LLVM 19, node and libstdc++.
const REAL: &[(&str, &str)] = &[
    ("<serde_json::value::ser::Serializer as serde_core::ser::Serializer>::serialize_seq", "Serializer::serialize_seq"),
    ("<rustc_span::def_id::DefId as rustc_middle::query::keys::QueryKey>::default_span", "DefId::default_span"),
    ("<alloc::string::String as core::fmt::Write>::write_str", "String::write_str"),
    (
        "<core::char::CaseMappingIter as core::iter::traits::iterator::Iterator>::advance_by",
        "CaseMappingIter::advance_by",
    ),
    ("<wasm_encoder::component::builder::ComponentBuilder>::core_module", "ComponentBuilder::core_module"),
    ("<regex_automata::nfa::thompson::pikevm::PikeVM>::search_slots_imp", "PikeVM::search_slots_imp"),
    ("<&mio::net::tcp::stream::TcpStream as std::io::Write>::write_vectored", "&TcpStream::write_vectored"),
    ("<&std::sys::fd::unix::FileDesc as std::io::Read>::read", "&FileDesc::read"),
    ("std::io::impls::<impl std::io::Read for &[u8]>::read", "&[u8]::read"),
    ("core::array::equality::<impl core::cmp::PartialEq<[U; N]> for &[T]>::ne", "&[T]::ne"),
    ("core::str::<impl str>::trim_start_matches", "str::trim_start_matches"),
    ("core::num::<impl i64>::from_ne_bytes", "i64::from_ne_bytes"),
    ("rustc_lint::builtin::KEYWORD_IDENTS_2024", "builtin::KEYWORD_IDENTS_2024"),
    ("regex_syntax::hir::translate::TranslatorI::push_char", "TranslatorI::push_char"),
    ("polletto::preflight::checks::missing_capabilities::{{closure}}", "missing_capabilities::{closure}"),
    (
        "<polletto_protos::TaskNewtaskFtraceEvent as prost::message::Message>::merge_field::{{closure}}",
        "TaskNewtaskFtraceEvent::merge_field::{closure}",
    ),
    ("rustc_traits::normalize_erasing_regions::provide::{closure#0}::__CALLSITE::META", "__CALLSITE::META"),
    ("rustc_ty_utils::needs_drop::drop_tys_helper::{closure#0}::__CALLSITE::META", "__CALLSITE::META"),
    ("polletto::preflight::machine::container::{{closure}}::{{closure}}", "container::{closure}::{closure}"),
    (
        "std::thread::lifecycle::spawn_unchecked::{{closure}}::{{closure}}::{{closure}}",
        "spawn_unchecked::{closure}::{closure}",
    ),
    ("<rustc_mir_transform::shim::DropShimElaborator as core::fmt::Debug>::fmt", "DropShimElaborator::fmt"),
    ("core::ops::function::FnOnce::call_once{{vtable.shim}}", "FnOnce::call_once"),
    ("<dyn fluent_bundle::types::FluentType + core::marker::Send as core::cmp::PartialEq>::eq", "dyn FluentType::eq"),
    ("<alloc::sync::Arc<dyn core::marker::Sync + core::marker::Send>>::drop_slow", "Arc::drop_slow"),
    ("llvm::pdb::NativeRawSymbol::getSrcLineOnTypeDefn() const", "NativeRawSymbol::getSrcLineOnTypeDefn"),
    (
        "core::ptr::drop_in_place<core::array::iter::IntoIter<(&str,fn(&mut polletto::unwind::Table)),9_usize>>",
        "ptr::drop_in_place",
    ),
    ("<[u8; 59] as simd_adler32::Adler32Hash>::hash", "[u8; 59]::hash"),
    ("<[u8; 6] as simd_adler32::Adler32Hash>::hash", "[u8; 6]::hash"),
    ("<(U,T) as core::fmt::Debug>::fmt", "(U, T)::fmt"),
    ("<() as std::process::Termination>::report", "()::report"),
    ("core::ptr::drop_in_place<std::process::ChildStdout>", "ptr::drop_in_place"),
    (
        "core::ptr::drop_in_place<core::array::iter::IntoIter<(&str,&str,core::option::Option<&str>),7_usize>>",
        "ptr::drop_in_place",
    ),
    (
        "<dyn rustc_hir_analysis::hir_ty_lowering::HirTyLowerer>::lower_type_relative_ty_path",
        "dyn HirTyLowerer::lower_type_relative_ty_path",
    ),
    ("<dyn tracing_core::field::Value as core::fmt::Display>::fmt", "dyn Value::fmt"),
    ("core::array::iter::<impl core::iter::traits::collect::IntoIterator for [T; N]>::into_iter", "[T; N]::into_iter"),
    ("core::array::equality::<impl core::cmp::PartialEq<[U; N]> for &[T]>::eq", "&[T]::eq"),
    ("core::ptr::drop_in_place<aho_corasick::packed::teddy::builder::x86_64::SlimAVX2<2_usize>>", "ptr::drop_in_place"),
    ("core::ptr::drop_in_place<core::array::iter::IntoIter<u16,4_usize>>", "ptr::drop_in_place"),
    ("<*const T as core::fmt::Pointer>::fmt", "*const T::fmt"),
    ("<*const T as core::fmt::Debug>::fmt", "*const T::fmt"),
    ("llvm::operator<<(llvm::raw_ostream&, llvm::AAValueSimplify const&)", "llvm::operator<<"),
    (
        "v8::internal::compiler::operator<<(std::ostream&, v8::internal::compiler::AddressingMode const&)",
        "compiler::operator<<",
    ),
    ("llvm::DbgRecordParamRef<llvm::DILocalVariable>::operator->() const", "DbgRecordParamRef::operator->"),
    ("llvm::DbgRecordParamRef<llvm::DILabel>::operator->() const", "DbgRecordParamRef::operator->"),
    ("std::tr1::hash<std::string const&>::operator()(std::string const&) const", "hash::operator()"),
    ("llvm::orc::SymbolLinkagePromoter::operator()(llvm::Module&)", "SymbolLinkagePromoter::operator()"),
    ("std::basic_ios<char, std::char_traits<char> >::operator bool() const", "basic_ios::operator bool"),
    ("std::basic_istream<char, std::char_traits<char> >::sentry::operator bool() const", "sentry::operator bool"),
    ("v8::TryCatch::operator new[](unsigned long)", "TryCatch::operator new[]"),
    ("operator delete(void*, std::align_val_t)", "operator delete"),
    (
        "llvm::SmallVectorImpl<llvm::VPValue*>::operator=(llvm::SmallVectorImpl<llvm::VPValue*>&&)",
        "SmallVectorImpl::operator=",
    ),
    (
        "llvm::SmallVectorImpl<llvm::VFParameter>::operator=(llvm::SmallVectorImpl<llvm::VFParameter>&&)",
        "SmallVectorImpl::operator=",
    ),
    (
        "node::WorkerThreadsTaskRunner::DelayedTaskScheduler::Start()::{lambda(void*)#1}::_FUN(void*)",
        "DelayedTaskScheduler::Start::{lambda}",
    ),
    ("void std::call_once<void (&)(), >(std::once_flag&, void (&)(), &&)::{lambda()#2}::_FUN()", "call_once::{lambda}"),
    (
        "void v8::internal::LookupIterator::NextInternal<false>(v8::internal::Map, v8::internal::JSReceiver)",
        "LookupIterator::NextInternal",
    ),
    (
        "void node::THROW_ERR_BUFFER_OUT_OF_BOUNDS<>(v8::Isolate*, char const*, &&)",
        "node::THROW_ERR_BUFFER_OUT_OF_BOUNDS",
    ),
    (
        "v8::internal::compiler::SimplifiedOperatorGlobalCache::NumberAtan2Operator::~NumberAtan2Operator()",
        "NumberAtan2Operator::~NumberAtan2Operator",
    ),
    ("v8::platform::DefaultForegroundTaskRunner::RunTaskScope::~RunTaskScope()", "RunTaskScope::~RunTaskScope"),
    (
        "llvm::TargetTransformInfo::isSourceOfDivergence(llvm::Value const*) const",
        "TargetTransformInfo::isSourceOfDivergence",
    ),
    ("llvm::opt::Option::dump() const", "Option::dump"),
    ("llvm::Twine::str[abi:cxx11]() const", "Twine::str"),
    ("llvm::getPGOName[abi:cxx11](llvm::GlobalVariable const&, bool)", "llvm::getPGOName"),
    ("{virtual override thunk({offset(-56)}, node::JSStream::ReadStart())}", "JSStream::ReadStart"),
    (
        "{virtual override thunk({offset(-88)}, node::LibuvStreamWrap::DoTryWrite(uv_buf_t**, unsigned long*))}",
        "LibuvStreamWrap::DoTryWrite",
    ),
    ("std::vector<unsigned short, std::allocator<unsigned short> >::reserve(unsigned long)", "vector::reserve"),
    (
        "llvm::SelectionDAG::CreateTopologicalOrder(std::vector<llvm::SDNode*, std::allocator<llvm::SDNode*> >&)",
        "SelectionDAG::CreateTopologicalOrder",
    ),
    (
        "std::__cxx11::basic_string<wchar_t, std::char_traits<wchar_t>, std::allocator<wchar_t> >::back() const",
        "basic_string::back",
    ),
    (
        "std::__cxx11::basic_string<char, std::char_traits<char>, std::allocator<char> >::at(unsigned long)",
        "basic_string::at",
    ),
];

#[test]
fn real_names_fit_on_a_slice() {
    check(REAL);
}

#[test]
fn a_method_stays_with_its_type_and_a_function_with_its_module() {
    check(&[
        ("app::routes::upload", "routes::upload"),
        ("app::Server::run", "Server::run"),
        ("main", "main"),
        ("<T as core::convert::Into<U>>::into", "T::into"),
        ("<[T]>::sort", "[T]::sort"),
        ("core::slice::<impl [T]>::sort", "[T]::sort"),
        ("<impl core::iter::Iterator for app::Rows<'_>>::next", "Rows::next"),
        ("<<app::A as app::B>::C as app::D>::run", "C::run"),
        ("<&'a mut [core::task::wake::Waker; 3] as app::Wake>::wake", "&mut [Waker; 3]::wake"),
        ("<dyn for<'a> app::Trait<'a> + core::marker::Send>::call", "dyn Trait::call"),
        ("<&(dyn app::Trait + core::marker::Send) as app::Call>::call", "&(dyn Trait)::call"),
        ("<(alloc::string::String, &[u8]) as app::Row>::read", "(String, &[u8])::read"),
        ("<fn(app::A) -> app::B as core::ops::function::FnOnce<(app::A,)>>::call_once", "fn::call_once"),
        ("<unsafe extern \"C\" fn() as app::Hook>::run", "fn::run"),
        ("<*const app::Node as app::Visit>::visit", "*const Node::visit"),
    ]);
}

#[test]
fn generics_are_left_out_whatever_they_contain() {
    check(&[
        ("app::run::<alloc::vec::Vec<u8>, 3>", "app::run"),
        ("app::run<alloc::vec::Vec<u8>>", "app::run"),
        ("app::map::<fn(app::A) -> app::B>", "app::map"),
        ("core::ptr::drop_in_place<core::iter::Map<I,fn(app::A) .> app::B>>", "ptr::drop_in_place"),
        ("app::Matrix<{ N + 1 }>::rows", "Matrix::rows"),
        ("<app::Matrix<{ (2 > 1) as usize }>>::rows", "Matrix::rows"),
        ("<app::Split<'>'>>::next", "Split::next"),
        ("<app::Split<'\\''>>::next", "Split::next"),
        ("<app::Named<{*\"a>b\\\"<\"}>>::name", "Named::name"),
        ("<app::Named<'a, 'b> as app::Name>::name", "Named::name"),
        ("<app::A as app::Visit>::visit::<<app::B as app::Visit>::visit::{closure#0}>", "A::visit"),
    ]);
}

#[test]
fn closures_and_blocks_stand_behind_their_function() {
    check(&[
        ("app::routes::upload::{async_fn#0}", "upload::{async}"),
        ("app::routes::upload::{async_fn_env#0}<app::Store>", "upload::{async}"),
        ("app::routes::upload::{async_block#2}", "upload::{async}"),
        ("app::routes::upload::{async_block_env#2}", "upload::{async}"),
        (
            "axum::serve::handle_connection::{async_fn#0}::{closure_env#2}<L, M>",
            "handle_connection::{async}::{closure}",
        ),
        ("app::routes::upload::{{closure}}", "upload::{closure}"),
        ("app::routes::upload::{closure#0}", "upload::{closure}"),
        ("<app::Server as tower::Service<R>>::call::{{closure}}", "Server::call::{closure}"),
        ("tokio::runtime::park::{impl#4}::block_on::{closure_env#0}<F>", "block_on::{closure}"),
        ("app::{impl#0}::run", "app::run"),
        ("app::run::{closure#0}::inner", "run::inner"),
        ("<app::f::{closure#0} as core::ops::FnOnce<()>>::call_once::{shim:vtable#0}", "f::{closure}::call_once"),
        ("{closure_env#0}<app::A>", "{closure}"),
    ]);
}

#[test]
fn names_of_c_plus_plus_lose_arguments_templates_and_return_types() {
    check(&[
        ("std::vector<int, std::allocator<int> >::push_back(int const&)", "vector::push_back"),
        ("Foo<int>& ns::bar<int>(int)", "ns::bar"),
        ("ns::Foo const& ns::Bar::get(int) const", "Bar::get"),
        ("decltype(auto) ns::pick<int>(int&&)", "ns::pick"),
        ("decltype ((x).begin()) ns::pick<int>(int&&)", "ns::pick"),
        ("(anonymous namespace)::work(int)", "work"),
        ("ns::(anonymous namespace)::work(int)", "ns::work"),
        ("ns::run(int)::{lambda(int)#1}::operator()(int) const", "run::{lambda}"),
        ("ns::run(int)::'lambda'(int)::operator()(int) const", "run::{lambda}"),
        ("ns::run(int)::$_0::operator()(int) const", "run::{lambda}"),
        ("bool ns::operator< <int>(ns::A<int> const&, ns::A<int> const&)", "ns::operator<"),
        ("bool ns::operator<=><int>(ns::A<int> const&)", "ns::operator<=>"),
        ("ns::A::operator->*(int)", "A::operator->*"),
        ("ns::A::operator std::vector<int, std::allocator<int> >() const", "A::operator vector"),
        ("ns::A::operator newest() const", "A::operator newest"),
        ("ns::operator\"\" _ms(unsigned long long)", "ns::operator\"\" _ms"),
        ("operators::run(int)", "operators::run"),
        ("std::function<void (int)>::operator()(int) const", "function::operator()"),
        ("non-virtual thunk to ns::A::run()", "A::run"),
    ]);
}

#[test]
fn parts_and_copies_of_a_function_have_its_name() {
    check(&[
        ("app::run.cold", "app::run"),
        ("ns::A::run() (.cold)", "A::run"),
        ("ns::A::run() const (.part.0.cold)", "A::run"),
        ("ns::A::run() [clone .isra.0]", "A::run"),
        ("memcpy.part.0.cold", "memcpy"),
        ("parse.constprop.1", "parse"),
    ]);
}

#[test]
fn what_is_no_name_of_rust_or_c_plus_plus_stays_as_it_is() {
    let others =
        ["__memmove_avx_unaligned_erms", "[unknown]", "vtable for ns::A", "interpreter entry frame", "a.b", "1.5"];
    for name in
        others.into_iter().chain(["LazyCompile:*<anonymous> /app/index.js:10:2", "_ZNSt6vector", " ", "::", "."])
    {
        assert_eq!(short(name), name);
    }
    assert_eq!(short(""), "");
}

#[test]
fn only_names_of_c_plus_plus_have_arguments() {
    for (name, arguments) in [
        ("ns::A::run(int) const", true),
        ("ns::(anonymous namespace)::run()", true),
        ("{virtual override thunk({offset(-56)}, node::JSStream::ReadStart())}", true),
        ("<(A, B) as app::Row>::read", false),
        ("app::run::<fn(u8)>", false),
        ("memcpy", false),
    ] {
        assert_eq!(has_arguments(name), arguments, "of {name}");
    }
}

#[test]
fn a_method_speaks_of_the_crates_of_its_type_and_its_trait() {
    for (name, of_type, of_trait) in [
        ("app::run", Some("app"), None),
        ("<app::A>::run", Some("app"), None),
        ("<app::A as tower::Service<R>>::call", Some("app"), Some("tower")),
        ("<&'a mut dyn app::A as tower::Service>::call", Some("app"), Some("tower")),
        ("<(dyn app::A + core::marker::Send) as tower::Service>::call", Some("app"), Some("tower")),
        ("<T as tower::Service>::call", None, Some("tower")),
        ("<[u8]>::sort", None, None),
        ("<<T as http::Body>::Data as bytes::Buf>::chunk", Some("http"), Some("bytes")),
        ("alloc::vec::<impl core::cmp::PartialEq for alloc::vec::Vec<T>>::eq", Some("alloc"), None),
        ("memcpy", None, None),
    ] {
        let crates = crates_of(name);
        assert_eq!((crates.of_type, crates.of_trait), (of_type, of_trait), "of {name}");
    }
}
