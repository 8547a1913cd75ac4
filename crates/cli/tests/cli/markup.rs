//! Parses a page as a browser does, but strictly.

use std::cell::{Cell, RefCell};

use html5ever::buffer_queue::BufferQueue;
use html5ever::tendril::StrTendril;
use html5ever::tokenizer::states::RawKind;
use html5ever::tokenizer::{Tag, TagKind, Token, TokenSink, TokenSinkResult, Tokenizer, TokenizerOpts};

/// Elements without an end.
const VOID: [&str; 3] = ["br", "link", "meta"];

/// Its name and its attributes.
type Element = (String, Vec<(String, String)>);

/// A parsed page.
#[derive(Default)]
pub struct Page {
    open: RefCell<Vec<String>>,
    elements: RefCell<Vec<Element>>,
    text: RefCell<String>,
    ended: Cell<bool>,
}

impl Page {
    /// Parses a page; panics unless it is well-formed and every element is closed.
    #[track_caller]
    pub fn parse(text: &str) -> Page {
        let input = BufferQueue::default();
        input.push_back(StrTendril::from(text));
        let strict = TokenizerOpts { exact_errors: true, ..TokenizerOpts::default() };
        let tokenizer = Tokenizer::new(Page::default(), strict);
        let _ = tokenizer.feed(&input); // without scripts it runs to the end
        tokenizer.end();
        let page = tokenizer.sink;
        assert!(page.ended.get() && page.open.borrow().is_empty(), "open at the end: {:?}", page.open);
        page
    }

    pub fn count(&self, name: &str) -> usize {
        self.elements.borrow().iter().filter(|(its, _)| its == name).count()
    }

    /// All values of that attribute, with the elements that have it.
    pub fn attributes(&self, name: &str) -> Vec<(String, String)> {
        let elements = self.elements.borrow();
        let found = elements.iter().flat_map(|(element, attributes)| {
            let its = attributes.iter().filter(|(attribute, _)| attribute == name);
            its.map(move |(_, value)| (element.clone(), value.clone()))
        });
        found.collect()
    }

    /// All text, that of the style sheet too.
    pub fn text(&self) -> String {
        self.text.borrow().clone()
    }

    fn tag(&self, tag: Tag) -> TokenSinkResult<()> {
        let name = tag.name.to_string();
        match tag.kind {
            TagKind::EndTag => {
                assert_eq!(self.open.borrow_mut().pop(), Some(name), "an end of something else")
            }
            TagKind::StartTag => {
                if !tag.self_closing && !VOID.contains(&&*name) {
                    self.open.borrow_mut().push(name.clone());
                }
                let pair = |attribute: &html5ever::Attribute| {
                    (attribute.name.local.to_string(), attribute.value.to_string())
                };
                let attributes = tag.attrs.iter().map(pair).collect();
                self.elements.borrow_mut().push((name.clone(), attributes));
                if name == "style" {
                    return TokenSinkResult::RawData(RawKind::Rawtext);
                }
            }
        }
        TokenSinkResult::Continue
    }
}

impl TokenSink for Page {
    type Handle = ();

    fn process_token(&self, token: Token, line: u64) -> TokenSinkResult<()> {
        match token {
            Token::ParseError(error) => panic!("line {line}: {error}"),
            Token::TagToken(tag) => return self.tag(tag),
            Token::CharacterTokens(text) => self.text.borrow_mut().push_str(&text),
            Token::EOFToken => self.ended.set(true),
            Token::DoctypeToken(_) | Token::CommentToken(_) | Token::NullCharacterToken => {}
        }
        TokenSinkResult::Continue
    }
}

#[test]
fn malformed_pages_are_found() {
    let broken = |text: &str| std::panic::catch_unwind(|| Page::parse(text)).is_err();
    assert!(!broken("<!doctype html><p>a &lt; b<br></p>"));
    for text in ["<p>", "<p></b></p>", "</p>", "<p a=1 a=2></p>", "<p title=a\"b></p>", "&#xfffffff;"] {
        assert!(broken(text), "{text}");
    }
}
