//! Tests of the frame parser and encoder.

use super::*;

/// What a server sends: the same frame without a mask.
fn plain(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..=125 => frame.push(length as u8),
        length @ 126..=0xffff => {
            frame.push(126);
            frame.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            frame.push(127);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(payload);
    frame
}

/// Messages as (opcode, payload).
type Messages = Vec<(u8, Vec<u8>)>;

fn collect(pieces: &[&[u8]]) -> Result<(Messages, Vec<u8>), String> {
    let mut parser = FrameParser::default();
    let mut messages = Vec::new();
    let mut out = Vec::new();
    for piece in pieces {
        parser.feed(piece, &mut out, |opcode, payload, _| {
            messages.push((opcode, payload.to_vec()));
        })?;
    }
    Ok((messages, out))
}

#[test]
fn every_length_form_split_everywhere() {
    let long = vec![b'x'; 70_000];
    let bodies: [&[u8]; 4] = [b"", b"hi", &long[..300], &long];
    for body in bodies {
        let mut stream = plain(0x80 | TEXT, body);
        stream.extend(plain(0x80 | BINARY, b"next"));
        let expected = vec![(TEXT, body.to_vec()), (BINARY, b"next".to_vec())];
        // All cuts near the ends, where the headers are.
        let cuts = (0..=stream.len()).filter(|cut| *cut < 320 || stream.len() - cut < 20);
        for cut in cuts {
            let (first, second) = stream.split_at(cut);
            let (messages, _) = collect(&[first, second]).expect("valid");
            assert_eq!(messages, expected, "length {} cut at {cut}", body.len());
        }
    }
}

#[test]
fn fragments_with_a_ping_between() {
    let mut stream = plain(TEXT, b"one ");
    stream.extend(plain(0x80 | PING, b"p"));
    stream.extend(plain(0, b"two "));
    stream.extend(plain(0x80, b"three"));
    let pieces: Vec<&[u8]> = stream.chunks(1).collect();
    let (messages, out) = collect(&pieces).expect("valid");
    assert_eq!(messages, [(TEXT, b"one two three".to_vec())]);
    let mut pong = Vec::new();
    encode(PONG, b"p", [7, 7, 7, 7], &mut pong);
    assert_eq!(out, pong);
}

#[test]
fn violations_and_close_end_the_connection() {
    assert!(collect(&[&plain(0xC0 | TEXT, b"x")]).is_err());
    assert!(collect(&[&plain(0x80, b"x")]).is_err());
    assert!(collect(&[&[0x81, 0x81, 0, 0, 0, 0, 0]]).is_err());
    assert!(collect(&[&[0x82, 127, 0xff, 0, 0, 0, 0, 0, 0, 0]]).is_err());
    let error = collect(&[&plain(0x80 | CLOSE, b"\x03\xe9bye")]).expect_err("closed");
    assert_eq!(error, "the server closed with 1001 bye");
}

#[test]
fn masking_is_undone_by_masking_again() {
    let mask = [1, 2, 3, 4];
    for length in [0, 1, 7, 8, 9, 125, 126, 1000, 70_000] {
        let payload: Vec<u8> = (0..length).map(|n| n as u8).collect();
        let mut frame = Vec::new();
        encode(BINARY, &payload, mask, &mut frame);
        let body = frame.len() - length;
        let header = match length {
            0..=125 => 2,
            126..=65_535 => 4,
            _ => 10,
        };
        assert_eq!(body, header + 4);
        assert_eq!(frame[header..body], mask);
        let unmasked: Vec<u8> =
            frame[body..].iter().zip(mask.iter().cycle()).map(|(b, k)| b ^ k).collect();
        assert_eq!(unmasked, payload);
    }
}
