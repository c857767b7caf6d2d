//! The largest safe spans: all of each function that holds a critical span, from behind its call of the tracer to its returns.

use std::collections::BTreeMap;

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic};
use kerf_image::{Image, PatchKind, PatchSites};

use super::Analysis;
use crate::build::text_base;
use crate::entry::{Entry, SafeSpan};
use crate::error::ConstError;

/// Takes whole functions.
pub struct WholeFunctions;

impl Analysis for WholeFunctions {
    fn safe_spans(&self, image: &Image, entry: &Entry) -> Result<Vec<SafeSpan>, ConstError> {
        let sites = image.patch_sites()?;
        let mut functions: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        for (n, span) in entry.spans.iter().enumerate() {
            functions.entry(span.function_offset).or_default().push(n);
        }
        functions.into_values().map(|critical| whole(image, &sites, entry, critical)).collect()
    }
}

fn whole(image: &Image, sites: &PatchSites, entry: &Entry, critical: Vec<usize>) -> Result<SafeSpan, ConstError> {
    let base = text_base(image);
    let Some(first) = critical.first().and_then(|n| entry.spans.get(*n)) else { return Ok(SafeSpan::default()) };
    let code = body(image, base + first.function_offset);
    let start = code.iter().position(|insn| !precedes_body(insn, sites)).and_then(|n| code.get(n));
    let (Some(start), Some(last)) = (start, code.last()) else {
        let why = format!("the image has no code for {}", first.function);
        return Err(ConstError::Damaged { id: entry.label().into(), why });
    };
    let exits = code.iter().filter(|insn| leaves(insn, &code)).map(|insn| insn.ip() - base).collect();
    Ok(SafeSpan {
        function: first.function.clone(),
        function_offset: first.function_offset,
        entry: start.ip() - base,
        ranges: vec![(start.ip() + 1 - base, last.next_ip() - base)],
        exits,
        repeated: true,
        frames: vec![None; critical.len()],
        critical,
        instructions: code.len() as u32,
        widened: Some("not analysed".into()),
        ..SafeSpan::default()
    })
}

/// The instructions of the function at an address.
fn body(image: &Image, address: u64) -> Vec<Instruction> {
    let Some(symbol) = image.function_at(address) else { return Vec::new() };
    let size = symbol.end().saturating_sub(address) as usize;
    let Some(bytes) = image.bytes(address, size) else { return Vec::new() };
    Decoder::with_ip(64, &bytes, address, DecoderOptions::NONE).into_iter().collect()
}

/// What stands before the function's own code: the landing pad of indirect calls, and the call of the tracer.
fn precedes_body(insn: &Instruction, sites: &PatchSites) -> bool {
    let own = sites.overlapping(insn.ip()..insn.next_ip());
    let patched = own.iter().any(|s| matches!(s.kind, PatchKind::Fentry | PatchKind::EndbrSeal));
    patched || insn.mnemonic() == Mnemonic::Endbr64
}

fn leaves(insn: &Instruction, code: &[Instruction]) -> bool {
    let inside =
        |target: u64| code.first().is_some_and(|f| f.ip() <= target) && code.last().is_some_and(|l| target <= l.ip());
    match insn.flow_control() {
        FlowControl::Return | FlowControl::IndirectBranch => true,
        FlowControl::UnconditionalBranch => !inside(insn.near_branch_target()),
        _ => false,
    }
}
