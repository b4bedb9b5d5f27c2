//! `bondctl top`: a live view of what runs here, until a key ends it.
//!
//! A thread reads the subscription and connects again when the client or server ended; the main
//! thread draws, and takes keys. The view shows what it was sent and measures nothing itself.
//! [`model`] has the state and what keys do, [`draw`] makes the picture.

mod draw;
mod model;
#[cfg(test)]
mod tests;

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bonding::cli::Usage;
use bonding::cli::bondctl::Target;
use bonding::control::{Ask, AskError, Request};
use bonding_os::signals::Signals;
use ratatui::crossterm::event::{self, Event};

use self::model::{Action, Model};

/// Between two looks at the keyboard. Chosen: a key acts at once to a person.
const KEY_INTERVAL: Duration = Duration::from_millis(50);
/// Lines that wait to be shown. Chosen: a terminal that stands still holds the reading up, and the
/// daemon then leaves figures out.
const NEWS_MAX: usize = 64;
/// Between two attempts to connect again.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// What is said while no process answers.
const WAITING: &str = "it has ended; waiting for the next start";

/// Examples of use.
pub(crate) const EXAMPLES: &str = "\
Examples:
  bondctl top                                 the client or server on this machine
  bondctl top --interval 100                  ten times a second
  NO_COLOR=1 bondctl top                      without colours
  bondctl top --role server                   where a client runs beside it

Keys: up and down choose a link, s sorts, p pauses, d demotes and e enables the link (client),
c shows clients or links (server), q ends.";

/// Options of `bondctl top`.
#[derive(Debug, clap::Args)]
pub(crate) struct TopArguments {
    /// Between two figures, in ms, from 100
    #[arg(long, value_name = "MS", default_value_t = 500, value_parser = clap::value_parser!(u64).range(100..))]
    interval: u64,
    #[command(flatten)]
    target: Target,
}

/// What the reading thread tells.
enum News {
    Line(String),
    Ended(String),
}

/// Shows it until a key ends it.
pub(crate) fn top(arguments: &TopArguments) -> anyhow::Result<ExitCode> {
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        return Err(
            Usage("top needs a terminal; for programs there is `bondctl status --json`".into()).into()
        );
    }
    let (path, ask) = connect(&arguments.target.sockets())?;
    let colours = std::env::var_os("NO_COLOR").is_none();
    let (sender, news) = sync_channel(NEWS_MAX);
    let (interval_ms, reader_path) = (arguments.interval, path.clone());
    std::thread::spawn(move || read(&reader_path, ask, interval_ms, &sender));
    // A signal gives the terminal back, as a key does.
    let mut signals = Signals::install().context("signals")?;
    let mut terminal = ratatui::try_init().context("the terminal")?;
    let result = run(&mut terminal, (&news, &mut signals), &path, Model::new(colours));
    ratatui::try_restore().context("the terminal")?;
    result?;
    Ok(ExitCode::SUCCESS)
}

/// The first of the sockets that answers.
fn connect(sockets: &[PathBuf]) -> Result<(PathBuf, Ask), AskError> {
    let mut missing = None;
    for socket in sockets {
        match Ask::connect(socket) {
            Ok(ask) => return Ok((socket.clone(), ask)),
            Err(error @ AskError::NotRunning(_)) => missing = missing.or(Some(error)),
            Err(error) => return Err(error),
        }
    }
    Err(missing.unwrap_or_else(|| AskError::NotRunning(PathBuf::new())))
}

/// Begins a subscription with the newest events; what was there before comes as news.
fn subscribe(mut ask: Ask, interval_ms: u64, news: &SyncSender<News>) -> Result<Ask, AskError> {
    let mut after = 0;
    loop {
        let line = ask.ask(&Request::Events { after })?;
        let last = model::last_event(&line);
        // A view that has ended needs no news.
        let _ = news.send(News::Line(line));
        match last {
            Some(last) => after = last,
            None => break,
        }
    }
    ask.subscribe(&Request::Subscribe { interval_ms, after: Some(after) })?;
    Ok(ask)
}

/// Subscribes, and reads lines for ever.
fn read(path: &Path, first: Ask, interval_ms: u64, news: &SyncSender<News>) {
    let mut found = Ok(first);
    loop {
        let error = match found.and_then(|ask| subscribe(ask, interval_ms, news)) {
            Ok(mut ask) => loop {
                let Ok(line) = ask.next_line() else { break WAITING.to_owned() };
                if news.send(News::Line(line)).is_err() {
                    return;
                }
            },
            Err(AskError::NotRunning(_)) => WAITING.to_owned(),
            Err(error) => error.to_string(),
        };
        if news.send(News::Ended(error)).is_err() {
            return;
        }
        std::thread::sleep(RETRY_INTERVAL);
        found = Ask::connect(path);
    }
}

fn run(
    terminal: &mut ratatui::DefaultTerminal,
    (news, signals): (&Receiver<News>, &mut Signals),
    path: &Path,
    mut model: Model,
) -> anyhow::Result<()> {
    let mut is_new = true;
    loop {
        if signals.poll_signal().is_some() {
            return Ok(());
        }
        if is_new {
            terminal.draw(|frame| draw::draw(frame, &model)).context("the terminal")?;
            is_new = false;
        }
        while event::poll(Duration::ZERO).context("the keyboard")? {
            is_new = true;
            let Event::Key(key) = event::read().context("the keyboard")? else { continue };
            match model.on_key(key) {
                Action::None => {}
                Action::Quit => return Ok(()),
                Action::Order { name, order } => {
                    let answer =
                        Ask::connect(path).and_then(|mut ask| ask.ask(&Request::Link { name, order }));
                    model.on_answer(&answer.unwrap_or_else(|error| error.to_string()));
                }
            }
        }
        match news.recv_timeout(KEY_INTERVAL) {
            Ok(first) => {
                for news in std::iter::once(first).chain(news.try_iter()) {
                    match news {
                        News::Line(line) => model.on_line(&line, Instant::now()),
                        News::Ended(why) => model.on_ended(why),
                    }
                }
                is_new = true;
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
}
