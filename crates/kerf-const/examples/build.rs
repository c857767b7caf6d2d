//! Builds the entries of the constants named on the command line: `build TREE IMAGE MODULES NAME…`.

use std::path::Path;
use std::time::Instant;

use kerf_const::build::{Input, build};
use kerf_const::site::Query;
use kerf_const::tree::Tree;
use kerf_image::Image;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let filter = tracing_subscriber::EnvFilter::from_env("KERF_LOG");
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).without_time().init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [tree, image, modules, names @ ..] = &arguments[..] else {
        return Err("usage: build TREE IMAGE MODULES NAME…".into());
    };
    let tree = Tree::open(Path::new(tree))?;
    let image = Image::open(Path::new(image))?;
    let input = Input { tree: &tree, image: &image, modules: Some(Path::new(modules)) };
    for name in names {
        let start = Instant::now();
        match Query::parse(name).and_then(|q| build(&input, &q)) {
            Ok(entries) => {
                for e in entries {
                    let seconds = start.elapsed().as_secs_f64();
                    println!(
                        "{} = {} {:?} {:?} {seconds:.1}s\n    {} domain {:?}",
                        e.label(),
                        e.value,
                        e.id,
                        e.class,
                        e.reason,
                        e.domain
                    );
                    for s in &e.spans {
                        let forms: Vec<String> = s.iv.iter().map(|i| format!("{} {:?}", i.form, i.field)).collect();
                        println!(
                            "    {}+{:#x}..{:#x} {}  [{}] window {} {:?}",
                            s.function,
                            s.start,
                            s.end,
                            s.expression,
                            forms.join(", "),
                            if s.window.bytes.is_empty() { &s.window.refused } else { &s.window.bytes },
                            s.proof
                        );
                    }
                }
            }
            Err(error) => println!("{name}: ERROR {error}"),
        }
    }
    Ok(())
}
