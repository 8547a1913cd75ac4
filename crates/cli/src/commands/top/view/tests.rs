//! The board drawn into memory.

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::style::Color;
use shmpipe::{Address, Options, Pipe};
use std::thread;
use std::time::{Duration, Instant};

use super::super::board::{Board, Next, Sort};
use super::draw;

const SECOND: Duration = Duration::from_secs(1);

fn pipe() -> Pipe {
    Options::new().capacity(4096).create("memfd").unwrap()
}

fn board(pipes: &[&Pipe]) -> (Board, Instant) {
    let addresses: Vec<Address> = pipes.iter().map(|pipe| pipe.address().clone()).collect();
    let mut board = Board::new(&addresses, SECOND);
    let start = Instant::now();
    board.tick(start);
    (board, start)
}

fn drawn(board: &Board, width: u16, height: u16) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, board)).unwrap();
    terminal.backend().buffer().clone()
}

fn lines(board: &Board) -> Vec<String> {
    let buffer = drawn(board, 80, 24);
    let rows = buffer.content.chunks(80);
    rows.map(|row| row.iter().map(|cell| cell.symbol()).collect::<String>().trim_end().to_owned()).collect()
}

fn press(board: &mut Board, keys: &str) -> Next {
    let mut next = Next::Show;
    for letter in keys.chars() {
        let code = match letter {
            '\n' => KeyCode::Enter,
            '\u{1b}' => KeyCode::Esc,
            '↓' => KeyCode::Down,
            '↑' => KeyCode::Up,
            letter => KeyCode::Char(letter),
        };
        next = board.press(KeyEvent::new(code, KeyModifiers::NONE));
    }
    next
}

#[test]
fn a_row_has_the_rates_of_an_interval_and_the_highest_fill() {
    let pipe = pipe();
    let (mut producer, mut consumer) = (pipe.producer().unwrap(), pipe.consumer().unwrap());
    let (mut board, start) = board(&[&pipe]);
    // 2,048 bytes of the ring: half of it.
    for _ in 0..32 {
        producer.send(&[0; 56]).unwrap();
    }
    board.look();
    while consumer.try_recv().is_ok() {}
    board.look();
    board.tick(start + 2 * SECOND);
    let lines = lines(&board);
    assert_eq!(lines[1], "PIPE                 MSG/S BYTES/S FILL HIGH WAITS            EVENTS    RATE");
    let row: Vec<&str> = lines[2].split_whitespace().collect();
    assert_eq!(row, [pipe.address().to_string().as_str(), "16", "896", "0%", "50%", "-", "█"], "{lines:#?}");
}

#[test]
fn a_row_says_who_waits() {
    let pipe = pipe();
    let (mut board, start) = board(&[&pipe]);
    let mut shown = |wanted: &str| {
        let begun = Instant::now();
        let mut ticks = 1;
        loop {
            board.look();
            board.tick(start + ticks * SECOND);
            let row = lines(&board)[2].clone();
            if row.contains(wanted) {
                return;
            }
            assert!(begun.elapsed() < Duration::from_secs(30), "{row} without {wanted}");
            ticks += 1;
        }
    };
    shown("no producer");
    let mut producer = pipe.producer().unwrap();
    shown("no consumer");
    let mut consumer = pipe.consumer().unwrap();
    thread::scope(|scope| {
        let receiving = scope.spawn(|| drop(consumer.recv().unwrap()));
        shown("consumer sleeps");
        producer.send(b"wake up").unwrap();
        receiving.join().unwrap();
    });
    while producer.try_send(&[0; 100]).is_ok() {}
    thread::scope(|scope| {
        let sending = scope.spawn(|| producer.send(&[0; 100]).unwrap());
        shown("producer sleeps");
        while consumer.try_recv().is_ok() {}
        sending.join().unwrap();
    });
    producer.abort(7).unwrap();
    shown("producer aborted");
}

#[test]
fn drops_are_events_since_the_start() {
    let pipe = pipe();
    let mut producer = pipe.producer().unwrap();
    producer.count_dropped(5);
    let (mut board, start) = board(&[&pipe]);
    producer.count_dropped(17);
    drop(producer);
    let _successor = pipe.producer().unwrap();
    board.look();
    board.tick(start + SECOND);
    assert!(lines(&board)[2].contains(" 1t 17x"), "{:#?}", lines(&board));
}

#[test]
fn a_pipe_that_takes_the_place_of_another_starts_afresh() {
    let address: Address = format!("shmpipe-top-{}-again", std::process::id()).parse().unwrap();
    let pipe = || Options::new().capacity(4096).create(&address).unwrap();
    pipe().producer().unwrap().send(&[0; 1000]).unwrap();
    let mut board = Board::new(std::slice::from_ref(&address), SECOND);
    let start = Instant::now();
    let mut shown = |seconds: u32| {
        board.look();
        board.tick(start + seconds * SECOND);
        lines(&board)[2].split_whitespace().skip(3).take(2).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(shown(1), ["25%", "25%"]);
    shmpipe::unlink(&address).unwrap();
    shown(2);
    pipe();
    let again = shown(3);
    shmpipe::unlink(&address).unwrap();
    assert_eq!(again, ["0%", "0%"]);
}

#[test]
fn eighty_columns_suffice_without_colour() {
    let directory =
        std::env::temp_dir().join(format!("shmpipe-top-{}-{}", std::process::id(), "x".repeat(60)));
    let missing: Address = format!("file:{}", directory.join("end").display()).parse().unwrap();
    let board = Board::new(&[missing], SECOND);
    let lines = lines(&board);
    assert!(lines[2].starts_with('…') && lines[2].contains("x/end"), "{lines:#?}");
    assert!(lines[2].ends_with("not there"), "{lines:#?}");
    let buffer = drawn(&board, 80, 24);
    assert!(buffer.content.iter().all(|cell| (cell.fg, cell.bg) == (Color::Reset, Color::Reset)));
    // Nothing panics in a terminal that is far too small.
    for (width, height) in [(0, 0), (1, 1), (20, 3), (300, 100)] {
        drawn(&board, width, height);
    }
}

#[test]
fn both_directions_of_a_duplex_pipe_are_rows() {
    let pipe = Options::new().capacity(4096).duplex(true).create("memfd").unwrap();
    let (mut board, _) = board(&[&pipe]);
    let shown = lines(&board);
    assert!(shown[2].contains(" A>B ") && shown[3].contains(" B>A "), "{shown:#?}");
    assert!(shown[0].starts_with("shmpipe top  1 of 1 pipes, "), "{shown:#?}");
    press(&mut board, "/b>a\n");
    let shown = lines(&board);
    assert!(shown[2].contains(" B>A ") && shown[3].is_empty(), "{shown:#?}");
    assert!(shown[0].starts_with("shmpipe top  1 of 1 pipes, "), "{shown:#?}");
    press(&mut board, "/x\n");
    assert!(lines(&board)[0].starts_with("shmpipe top  0 of 1 pipes, "));
}

#[test]
fn keys_sort_filter_select_and_show_in_full() {
    let (one, two) = (pipe(), pipe());
    let (mut board, start) = board(&[&one, &two]);
    two.producer().unwrap().send(b"hello").unwrap();
    board.look();
    board.tick(start + SECOND);
    let [first, second] = [&one, &two].map(|pipe| pipe.address().to_string());
    let order = |board: &Board| -> Vec<String> { board.rows().iter().map(|row| row.name.clone()).collect() };
    let mut by_name = vec![first.clone(), second.clone()];
    by_name.sort();
    assert_eq!(order(&board), by_name);
    press(&mut board, "s");
    assert_eq!((board.sort, order(&board)), (Sort::Messages, vec![second.clone(), first.clone()]));
    press(&mut board, "r");
    assert_eq!(order(&board), [first.clone(), second.clone()]);
    press(&mut board, "↓↓");
    assert_eq!(board.selected(&board.rows()), 1);
    // The selection stays with its pipe.
    press(&mut board, "r");
    assert_eq!(board.selected(&board.rows()), 0);
    press(&mut board, "\n");
    let shown = lines(&board);
    assert_eq!(shown[1], second);
    assert!(
        shown.iter().any(|line| line.starts_with("capacity ") && line.ends_with("4 KiB (4096 bytes)")),
        "{shown:#?}"
    );
    press(&mut board, "\n");
    press(&mut board, &format!("/{second}q\u{8}"));
    assert!(lines(&board)[23].starts_with(&format!("/{second}q")), "q is a letter of the filter");
    assert_eq!(order(&board), [""; 0]);
    board.press(KeyEvent::new(KeyCode::Backspace, KeyModifiers::NONE));
    board.press(KeyEvent::new(KeyCode::Backspace, KeyModifiers::NONE));
    press(&mut board, "\n");
    assert_eq!(order(&board), [second.as_str()]);
    assert_eq!(press(&mut board, "q"), Next::Quit);
    assert_eq!(board.press(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)), Next::Quit);
}
