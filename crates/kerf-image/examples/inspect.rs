//! Prints what an image holds: `inspect FILE`, `inspect FILE SYMBOL`; `running` in place of FILE is this machine's kernel.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use kerf_image::{Image, ImageError};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.as_slice() {
        [file] => open(file).and_then(|image| overview(&image)),
        [file, name] => open(file).map(|image| symbol(&image, name)),
        _ => {
            eprintln!("usage: inspect FILE|running [SYMBOL]");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("inspect: {error}");
            ExitCode::FAILURE
        }
    }
}

fn open(file: &str) -> Result<Image, ImageError> {
    let start = std::time::Instant::now();
    let image = if file == "running" { Image::running() } else { Image::open(Path::new(file)) };
    eprintln!("opened in {} ms", start.elapsed().as_millis());
    image
}

fn overview(image: &Image) -> Result<(), ImageError> {
    println!("kind      {}", image.kind());
    println!("release   {}", image.release().unwrap_or("-"));
    println!("build id  {}", image.build_id().map_or("-".into(), ToString::to_string));
    println!(
        "symbols   {} ({:?}), {} functions",
        image.symbols().len(),
        image.symbol_source(),
        image.functions().count()
    );
    println!("types     {} bytes of BTF", image.btf().map_or(0, <[u8]>::len));
    println!("sections");
    for section in image.sections().iter().filter(|section| section.alloc) {
        let flag = |set: bool, letter: char| if set { letter } else { '-' };
        println!(
            "  {:<28} {:#018x} {:>9}  {}{}{}",
            section.name,
            section.address,
            section.size,
            flag(section.write, 'w'),
            flag(section.exec, 'x'),
            flag(section.file_backed, 'f')
        );
    }
    let sites = image.patch_sites()?;
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for site in sites.all() {
        *counts.entry(format!("{} of {} bytes", site.kind, site.len)).or_default() += 1;
    }
    println!("patch sites {}", sites.all().len());
    for (kind, count) in counts {
        println!("  {count:>7} {kind}");
    }
    for table in sites.unavailable() {
        println!("  unavailable: {} ({}): {}", table.name, table.kind, table.reason);
    }
    Ok(())
}

fn symbol(image: &Image, name: &str) {
    let mut found = 0;
    for symbol in image.symbols_named(name) {
        found += 1;
        let size = symbol.size.unwrap_or(0);
        println!("{:#018x} {size:>6} bytes  {:?} {:?}", symbol.address, symbol.kind, symbol.binding);
        let shown = image.bytes(symbol.address, size.min(256) as usize).unwrap_or_default();
        for (line, bytes) in shown.chunks(16).enumerate() {
            let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            println!("  {:+06x}  {}", line * 16, hex.join(" "));
        }
    }
    if found == 0 {
        println!("no symbol is called {name:?}; did you mean one of {:?}?", image.similar_symbols(name, 5));
    }
}
