//! Draws latency against load as a picture for the documentation.

use std::path::Path;

use plotters::element::DashedPathElement;
use plotters::prelude::*;

use crate::load::{Point, Series};

const SIZE: (u32, u32) = (760, 420);
/// Stands for the colour of the text, which differs between the light and the dark theme.
const TEXT: RGBColor = RGBColor(1, 2, 3);
/// Colours that can be told apart on light and on dark, and by colour-blind people.
const COLOURS: [RGBColor; 3] =
    [RGBColor(0x80, 0x80, 0x80), RGBColor(0x10, 0xb9, 0x81), RGBColor(0x3b, 0x82, 0xf6)];

/// Writes a picture whose medians are solid lines and 99th percentiles dashed ones.
pub fn draw(path: &Path, title: &str, series: &[Series]) {
    let mut svg = String::new();
    plot(&mut svg, series).unwrap();
    std::fs::write(path, themed(&svg, path, title, series)).unwrap();
}

fn plot(svg: &mut String, series: &[Series]) -> Result<(), Box<dyn std::error::Error>> {
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    let points = || series.iter().flat_map(|one| &one.points);
    let highest = points().map(|point| point.rate / 1e3).fold(0.0, f64::max);
    let lowest = points().map(|point| point.median * 1e6).fold(f64::MAX, f64::min);
    let slowest = points().map(|point| point.p99 * 1e6).fold(0.0, f64::max);
    let font = ("system-ui,sans-serif", 13).into_font().color(&TEXT);
    let mut chart = ChartBuilder::on(&area)
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(64)
        // The room above the lines is for the legend.
        .build_cartesian_2d(0.0..highest * 1.02, (lowest * 0.8..slowest * 16.0).log_scale())?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(TEXT.mix(0.15))
        .axis_style(TEXT.mix(0.5))
        .label_style(font.clone())
        .x_desc("offered load, thousand requests per second")
        .y_desc("latency")
        .x_label_formatter(&|rate| format!("{rate:.0}"))
        .y_label_formatter(&|micros| match *micros {
            micros if micros < 1000.0 => format!("{micros:.0} µs"),
            micros => format!("{:.0} ms", micros / 1000.0),
        })
        .draw()?;
    for (one, colour) in series.iter().zip(COLOURS) {
        let line = |value: fn(&Point) -> f64| -> Vec<(f64, f64)> {
            one.points.iter().map(|point| (point.rate / 1e3, value(point) * 1e6)).collect()
        };
        let style = colour.stroke_width(2);
        chart
            .draw_series(LineSeries::new(line(|point| point.median), style))?
            .label(format!("{}, median", one.name))
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 28, y)], style));
        chart
            .draw_series(DashedLineSeries::new(line(|point| point.p99), 6, 4, style))?
            .label(format!("{}, 99th percentile", one.name))
            .legend(move |(x, y)| DashedPathElement::new([(x, y), (x + 28, y)], 6, 4, style));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .legend_area_size(36)
        .label_font(font)
        .draw()?;
    area.present()?;
    Ok(())
}

/// Makes the picture fit into a page: it scales, has a title, and takes the colour of its text from the theme.
fn themed(svg: &str, path: &Path, title: &str, series: &[Series]) -> String {
    let (_, drawing) = svg.split_once(">\n").unwrap();
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    let (width, height) = SIZE;
    let most: Vec<_> = series
        .iter()
        .filter_map(|one| Some(format!("{}: {:.0} thousand", one.name, one.points.last()?.rate / 1e3)))
        .collect();
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" role=\"img\" aria-labelledby=\"{name}-title\" \
         viewBox=\"0 0 {width} {height}\" style=\"width:100%;max-width:{width}px;height:auto\">\n\
         <title id=\"{name}-title\">Latency against load: {title}. Latency rises slowly with the load, and steeply where the \
         server has no time left. Highest rates per second: {}.</title>\n\
         <style>svg:root{{color:#6e7781}}@media(prefers-color-scheme:dark){{svg:root{{color:#adbac7}}}}</style>\n{}",
        most.join(", "),
        drawing.replace("#010203", "currentColor"),
    )
}
