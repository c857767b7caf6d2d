//! Finds the safe spans of entries in a scope table: `safe_spans TABLE IMAGE [NAME…]`.

use std::path::Path;
use std::time::Instant;

use kerf_const::entry::Class;
use kerf_const::safe_span::{Analysis as _, ThinSlices};
use kerf_const::table::Table;
use kerf_image::Image;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [table, image, names @ ..] = &arguments[..] else {
        return Err("usage: safe_spans TABLE IMAGE [NAME…]".into());
    };
    let (table, image) = (Table::open(Path::new(table))?, Image::open(Path::new(image))?);
    for entry in table.entries(None)? {
        if entry.class != Class::Proved || !(names.is_empty() || names.iter().any(|name| name == entry.label())) {
            continue;
        }
        let start = Instant::now();
        let spans = ThinSlices::default().safe_spans(&image, &entry)?;
        println!("{} {:.2} s", entry.label(), start.elapsed().as_secs_f64());
        for span in spans {
            println!(
                "  {}+{:#x}: {} instructions, critical {:?}, repeated {}, frames {:?}, {} ranges, {} exits, {:?} {:?}",
                span.function,
                span.entry - span.function_offset,
                span.instructions,
                span.critical,
                span.repeated,
                span.frames,
                span.ranges.len(),
                span.exits.len(),
                span.widened,
                span.escapes,
            );
            if !names.is_empty() {
                for (start, end) in &span.ranges {
                    println!(
                        "    {:#x}..{:#x}",
                        start.wrapping_sub(span.function_offset),
                        end.wrapping_sub(span.function_offset)
                    );
                }
                span.slice.iter().for_each(|step| println!("    {:40} {:40} {}", step.place, step.text, step.flow));
            }
        }
    }
    Ok(())
}
