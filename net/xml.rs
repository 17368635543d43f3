//! The text of an element of an XML document. Used by listings and by the documents of errors.

use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::Event;

/// Appends what `event` adds to an element's text: text, CDATA, entities and character references.
pub(crate) fn push_text(event: &Event<'_>, value: &mut String) {
    match event {
        Event::Text(text) => value.push_str(&text.xml10_content()),
        Event::CData(text) => value.push_str(&text.xml10_content()),
        Event::GeneralRef(reference) => match reference.resolve_char_ref() {
            Ok(Some(c)) => value.push(c),
            _ => value.push_str(resolve_predefined_entity(reference.as_ref()).unwrap_or("\u{fffd}")),
        },
        _ => {}
    }
}
