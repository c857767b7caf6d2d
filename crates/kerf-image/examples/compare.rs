//! Compares the running kernel's text with its image: `compare VMLINUZ`, as root, booted with `nokaslr`.
//!
//! Every byte that differs must lie in a place that the image's tables list. So this checks that the tables were read
//! completely, and that the lengths of their places are right. Prints the bytes that no table explains, and fails if
//! there are any.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use kerf_image::{Image, PatchSites};

fn main() -> ExitCode {
    let Some(file) = std::env::args().nth(1) else {
        eprintln!("usage: compare VMLINUZ");
        return ExitCode::from(2);
    };
    match compare(Path::new(&file)) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(unexplained) => {
            eprintln!("compare: {unexplained} bytes differ outside the places that the tables list");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("compare: {error}");
            ExitCode::FAILURE
        }
    }
}

/// How many bytes of the text differ in places that no table lists.
fn compare(file: &Path) -> Result<usize, Box<dyn std::error::Error>> {
    let (image, running) = (Image::open(file)?, Image::running()?);
    if image.build_id() != running.build_id() {
        return Err(format!("{} is not the kernel that runs: the build ids differ", file.display()).into());
    }
    let place = |image: &Image, name: &str| {
        let symbol = image.symbols_named(name).next().map(|symbol| symbol.address);
        symbol.ok_or_else(|| format!("the {} has no symbol {name}", image.kind()))
    };
    let (start, end) = (place(&image, "_stext")?, place(&image, "_etext")?);
    if place(&running, "_stext")? != start {
        return Err("the kernel is not where it was linked to run; boot it with `nokaslr`".into());
    }
    let text = |image: &Image| {
        let bytes = image.bytes(start, (end - start) as usize).map(|bytes| bytes.into_owned());
        bytes.ok_or_else(|| format!("the text of the {} cannot be read", image.kind()))
    };
    Ok(report(&image, &image.patch_sites()?, start, &text(&image)?, &text(&running)?))
}

fn report(image: &Image, sites: &PatchSites, start: u64, stock: &[u8], live: &[u8]) -> usize {
    let mut explained: BTreeMap<String, usize> = BTreeMap::new();
    let mut unexplained = 0;
    for (address, (stock, live)) in (start..).zip(stock.iter().zip(live)).filter(|(_, (stock, live))| stock != live) {
        let here = sites.overlapping(address..address + 1);
        for site in here.iter() {
            *explained.entry(site.kind.to_string()).or_default() += 1;
        }
        if here.is_empty() {
            unexplained += 1;
            let function = image.function_at(address).map_or("no function", |function| &function.name);
            println!("{address:#x} in {function}: {stock:02x} became {live:02x}");
        }
    }
    println!("{} bytes of text, {unexplained} changed for no known reason", stock.len());
    for (kind, count) in explained {
        println!("{count:>8} bytes changed: {kind}");
    }
    unexplained
}
