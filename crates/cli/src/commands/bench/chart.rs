//! Plots: curves on logarithmic axes, each labelled at its end.
//!
//! The drawing library has colours, the page has themes. Everything is therefore drawn in *inks*: stand-in colours that the
//! finished drawing replaces by classes of the style sheet.

use std::error::Error;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// Drawing units per pixel: the library rounds positions to whole units.
const FINE: i32 = 4;

/// The distance between two labels, in pixels.
const LINE_HEIGHT: i32 = 15;

/// The style of a part of the drawing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ink {
    Text,
    Axis,
    Grid,
    /// The floor, for comparison.
    Floor,
    /// Transports of one kind share a hue; the number selects dashes and marks.
    Transport(Kind, usize),
}

/// Similar transports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Ours,
    Memory,
    Pipe,
    Socket,
    Queue,
}

impl Kind {
    const ALL: [Kind; 5] = [Kind::Ours, Kind::Memory, Kind::Pipe, Kind::Socket, Kind::Queue];

    fn class(self) -> &'static str {
        match self {
            Kind::Ours => "ours",
            Kind::Memory => "memory",
            Kind::Pipe => "pipe",
            Kind::Socket => "socket",
            Kind::Queue => "queue",
        }
    }
}

/// The number of distinct styles per kind.
const STYLES: usize = 6;

impl Ink {
    fn all() -> impl Iterator<Item = Ink> {
        let transports =
            Kind::ALL.into_iter().flat_map(|kind| (0..STYLES).map(move |n| Ink::Transport(kind, n)));
        [Ink::Text, Ink::Axis, Ink::Grid, Ink::Floor].into_iter().chain(transports)
    }

    /// The colour that stands for this ink until the style sheet takes over.
    fn colour(self) -> RGBColor {
        match self {
            Ink::Text => RGBColor(1, 0, 0),
            Ink::Axis => RGBColor(2, 0, 0),
            Ink::Grid => RGBColor(3, 0, 0),
            Ink::Floor => RGBColor(4, 0, 0),
            Ink::Transport(kind, number) => RGBColor(5, kind as u8, (number % STYLES) as u8),
        }
    }

    fn class(self) -> String {
        match self {
            Ink::Text => "text".to_owned(),
            Ink::Axis => "axis".to_owned(),
            Ink::Grid => "grid".to_owned(),
            Ink::Floor => "floor".to_owned(),
            Ink::Transport(kind, number) => format!("{} n{}", kind.class(), number % STYLES),
        }
    }
}

/// One curve, from left to right.
#[derive(Clone, Debug)]
pub struct Curve {
    pub name: String,
    pub ink: Ink,
    pub points: Vec<(f64, f64)>,
    /// Whether to mark the points: each is a separate measurement.
    pub marked: bool,
}

/// An axis with its ticks and their labels.
#[derive(Clone, Debug)]
pub struct Axis {
    pub range: (f64, f64),
    pub ticks: Vec<(f64, String)>,
    pub title: String,
}

impl Axis {
    /// An axis around all values, with ticks at round numbers.
    pub fn around(
        values: impl Iterator<Item = f64> + Clone,
        title: &str,
        show: impl Fn(f64) -> String,
    ) -> Axis {
        let (low, high) = values.fold((f64::MAX, 0.0_f64), |(low, high), v| (low.min(v), high.max(v)));
        let (low, high) = if low <= high { (low * 0.9, high * 1.1) } else { (1.0, 10.0) };
        let steps: &[f64] = if high / low > 200.0 { &[1.0] } else { &[1.0, 2.0, 5.0] };
        let decades = low.log10().floor() as i32 - 1..=high.log10().ceil() as i32;
        let round: Vec<f64> =
            decades.flat_map(|decade| steps.iter().map(move |s| s * 10_f64.powi(decade))).collect();
        let from = round.iter().copied().rev().find(|&tick| tick <= low).unwrap_or(low);
        let to = round.iter().copied().find(|&tick| tick >= high).unwrap_or(high);
        let ticks = round.into_iter().filter(|&tick| tick >= from && tick <= to);
        Axis {
            range: (from, to),
            ticks: ticks.map(|tick| (tick, show(tick))).collect(),
            title: title.to_owned(),
        }
    }

    /// The ticks that are at least `apart` from the previous one, on an axis of that length.
    fn spaced(&self, length: i32, apart: impl Fn(&str, &str) -> i32) -> Vec<(f64, String)> {
        let (from, to) = (self.range.0.ln(), self.range.1.ln());
        let place = |tick: f64| (tick.ln() - from) / (to - from) * f64::from(length);
        let mut kept: Vec<(f64, String)> = Vec::new();
        for tick in &self.ticks {
            let far =
                |last: &(f64, String)| place(tick.0) - place(last.0) >= f64::from(apart(&last.1, &tick.1));
            if kept.last().is_none_or(far) {
                kept.push(tick.clone());
            }
        }
        kept
    }
}

/// For a monitor or a phone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Wide,
    Narrow,
}

/// Dimensions of the drawing, in pixels.
struct Measures {
    size: (i32, i32),
    left: i32,
    right: i32,
    top: i32,
    bottom: i32,
    /// The height of text.
    text: i32,
}

impl Format {
    fn measures(self) -> Measures {
        match self {
            Format::Wide => {
                Measures { size: (760, 400), left: 72, right: 128, top: 30, bottom: 46, text: 13 }
            }
            Format::Narrow => {
                Measures { size: (360, 380), left: 66, right: 104, top: 28, bottom: 44, text: 12 }
            }
        }
    }
}

/// The drawing, for a page whose style sheet has the classes. `described` is its label for screen readers.
pub fn draw(x: &Axis, y: &Axis, curves: &[Curve], format: Format, described: &str) -> String {
    let measures = format.measures();
    let (width, height) = (measures.size.0 * FINE, measures.size.1 * FINE);
    let mut drawing = String::new();
    let root = SVGBackend::with_string(&mut drawing, (width as u32, height as u32)).into_drawing_area();
    let drawn = draw_on(&root, x, y, curves, &measures).and_then(|()| Ok(root.present()?));
    drop(root);
    drawn.expect("drawing into memory cannot fail");
    let body = drawing.split_once('>').map_or("", |(_, body)| body);
    let mut body = body.trim_end().trim_end_matches("</svg>").replace(" opacity=\"1\"", "");
    for ink in Ink::all() {
        let RGBColor(r, g, b) = ink.colour();
        let (colour, class) = (format!("#{r:02X}{g:02X}{b:02X}"), ink.class());
        body = body.replace(&format!("stroke=\"{colour}\""), &format!("class=\"line {class}\""));
        body = body.replace(&format!("fill=\"{colour}\""), &format!("class=\"area {class}\""));
    }
    let described = escaped(described);
    format!("<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{described}\">{body}</svg>")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

fn draw_on(
    root: &Area<'_>,
    x: &Axis,
    y: &Axis,
    curves: &[Curve],
    measures: &Measures,
) -> Result<(), Box<dyn Error>> {
    let &Measures { size, left, right, top, bottom, text } = measures;
    let fine = |pixels: i32| pixels * FINE;
    let font = |ink: Ink| {
        // The library draws text smaller than requested, by this factor.
        let mut style = TextStyle::from(("sans-serif", f64::from(fine(text)) * 1.24).into_font());
        style.color = ink.colour().to_backend_color();
        style
    };
    // A letter is about 0.6 times as wide as high.
    let wide = |a: &str, b: &str| (a.chars().count() + b.chars().count() + 3) as i32 * fine(text) * 3 / 10;
    let x_ticks = x.spaced(fine(size.0 - left - right), wide);
    let y_ticks = y.spaced(fine(size.1 - top - bottom), |_, _| fine(2 * text));
    let places = |ticks: &[(f64, String)]| ticks.iter().map(|(place, _)| *place).collect::<Vec<_>>();
    let shown = |ticks: &[(f64, String)], at: f64| {
        let found = ticks.iter().find(|(place, _)| *place == at);
        found.map_or(String::new(), |(_, shown)| shown.clone())
    };
    let mut chart = ChartBuilder::on(root)
        .margin_top(fine(top))
        .margin_right(fine(right))
        .x_label_area_size(fine(bottom))
        .y_label_area_size(fine(left))
        .build_cartesian_2d(
            (x.range.0..x.range.1).log_scale().with_key_points(places(&x_ticks)),
            (y.range.0..y.range.1).log_scale().with_key_points(places(&y_ticks)),
        )?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(Ink::Grid.colour())
        .axis_style(Ink::Axis.colour())
        .label_style(font(Ink::Text))
        .x_label_formatter(&|at| shown(&x_ticks, *at))
        .y_label_formatter(&|at| shown(&y_ticks, *at) + "\u{2009}\u{2009}")
        .draw()?;
    let title = font(Ink::Text).pos(Pos::new(HPos::Left, VPos::Top));
    root.draw(&Text::new(y.title.clone(), (fine(4), fine(4)), title))?;
    let middle = left + (size.0 - left - right) / 2;
    let title = font(Ink::Text).pos(Pos::new(HPos::Center, VPos::Bottom));
    root.draw(&Text::new(x.title.clone(), (fine(middle), fine(size.1 - 4)), title))?;

    for curve in curves {
        chart
            .draw_series(LineSeries::new(curve.points.iter().copied(), curve.ink.colour().stroke_width(2)))?;
        if curve.marked {
            for point in &curve.points {
                mark(root, chart.backend_coord(point), curve.ink)?;
            }
        }
    }
    let ends: Vec<(&Curve, (i32, i32))> =
        curves.iter().filter_map(|curve| Some((curve, chart.backend_coord(curve.points.last()?)))).collect();
    let wanted: Vec<i32> = ends.iter().map(|(_, (_, y))| *y).collect();
    let names = spread(&wanted, fine(LINE_HEIGHT), (fine(top), fine(size.1 - bottom)));
    let edge = fine(size.0 - right);
    for ((curve, end), y) in ends.into_iter().zip(names) {
        let leader = [end, (edge.max(end.0) + fine(2), y), (edge + fine(8), y)];
        root.draw(&PathElement::new(leader, curve.ink.colour().stroke_width(1)))?;
        let style = font(curve.ink).pos(Pos::new(HPos::Left, VPos::Center));
        root.draw(&Text::new(curve.name.clone(), (edge + fine(11), y), style))?;
    }
    Ok(())
}

/// The mark of a measured point: one shape per transport of a kind.
fn mark(root: &Area<'_>, (x, y): (i32, i32), ink: Ink) -> Result<(), Box<dyn Error>> {
    let number = match ink {
        Ink::Transport(_, number) => number % STYLES,
        _ => 0,
    };
    let (r, filled) = (4 * FINE, ink.colour().filled());
    let path = |points: &[(i32, i32)]| {
        Polygon::new(points.iter().map(|(dx, dy)| (x + dx, y + dy)).collect::<Vec<_>>(), filled)
    };
    match number {
        0 => root.draw(&Circle::new((x, y), r, filled))?,
        1 => root.draw(&path(&[(-r, -r), (r, -r), (r, r), (-r, r)]))?,
        2 => root.draw(&path(&[(0, -r), (r, r), (-r, r)]))?,
        3 => root.draw(&path(&[(0, -r - FINE), (r + FINE, 0), (0, r + FINE), (-r - FINE, 0)]))?,
        4 => root.draw(&path(&[(0, r), (r, -r), (-r, -r)]))?,
        _ => root.draw(&Circle::new((x, y), r, ink.colour().stroke_width(FINE as u32)))?,
    }
    Ok(())
}

/// Positions as close as possible to the wanted ones, in the same order, at least `apart`, and within the bounds if there is room.
fn spread(wanted: &[i32], apart: i32, (from, to): (i32, i32)) -> Vec<i32> {
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_by_key(|&i| wanted[i]);
    let mut places: Vec<i32> = order.iter().map(|&i| wanted[i].max(from)).collect();
    // Labels that overlap move apart around the mean of their wanted positions.
    for _ in 0..places.len() {
        for i in 1..places.len() {
            let overlap = places[i - 1] + apart - places[i];
            if overlap > 0 {
                places[i - 1] -= overlap / 2;
                places[i] += overlap - overlap / 2;
            }
        }
    }
    let mut lowest = to;
    for place in places.iter_mut().rev() {
        *place = (*place).min(lowest);
        lowest = *place - apart;
    }
    let mut highest = from;
    for place in &mut places {
        *place = (*place).max(highest);
        highest = *place + apart;
    }
    let mut found = vec![0; wanted.len()];
    for (&i, place) in order.iter().zip(places) {
        found[i] = place;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_do_not_overlap_and_keep_their_order() {
        let wanted = [100, 10, 102, 101, 400];
        let places = spread(&wanted, 20, (0, 400));
        let mut sorted = places.clone();
        sorted.sort_unstable();
        assert!(sorted.windows(2).all(|pair| pair[1] - pair[0] >= 20), "{places:?}");
        assert!(places[1] < places[0] && places[0] < places[3] && places[3] < places[2], "{places:?}");
        assert!(places.iter().all(|place| (0..=400).contains(place)), "{places:?}");
        assert_eq!((places[1], places[4]), (10, 400));
    }

    #[test]
    fn an_axis_reaches_round_numbers_beyond_its_values() {
        let axis = Axis::around([62.0, 900.0].into_iter(), "", |tick| tick.to_string());
        let ticks: Vec<f64> = axis.ticks.iter().map(|(tick, _)| *tick).collect();
        assert_eq!((axis.range, ticks), ((50.0, 1000.0), vec![50.0, 100.0, 200.0, 500.0, 1000.0]));
        let axis = Axis::around([3.0, 70_000.0].into_iter(), "", |tick| tick.to_string());
        assert_eq!((axis.range, axis.ticks.len()), ((1.0, 100_000.0), 6));
        assert_eq!(Axis::around([].into_iter(), "", |tick| tick.to_string()).range, (1.0, 10.0));
    }

    #[test]
    fn no_ink_is_left_as_a_colour() {
        let curves: Vec<Curve> = Ink::all()
            .map(|ink| Curve {
                name: "<&>".to_owned(),
                ink,
                points: vec![(8.0, 5.0), (64.0, 50.0)],
                marked: true,
            })
            .collect();
        let axis = |title: &str| Axis::around([5.0, 80.0].into_iter(), title, |tick| tick.to_string());
        let drawing = draw(&axis("x"), &axis("y"), &curves, Format::Narrow, "a \"plot\" of <&>");
        assert!(!drawing.contains("#0"), "{drawing}");
        assert!(drawing.contains("aria-label=\"a &quot;plot&quot; of &lt;&amp;>\""), "{drawing}");
        assert!(drawing.contains("class=\"line queue n5\"") && drawing.contains("class=\"area ours n0\""));
        assert!(drawing.contains("&lt;&amp;&gt;") && !drawing.contains("<&"), "{drawing}");
    }
}
