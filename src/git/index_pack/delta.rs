//! What a delta makes of its base.

/// Why it makes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// It would be larger than it may be.
    TooLarge,
    /// It is out of form.
    Damaged,
}

/// How much an instruction without a size copies, in bytes.
const USUAL_COPY_BYTES: usize = 0x10000;

/// Applies a delta, which says itself how large its base and what it makes are.
pub(super) fn apply(base: &[u8], delta: &[u8], max_bytes: u64) -> Result<Vec<u8>, Failure> {
    let mut rest = delta;
    let base_size = size(&mut rest).ok_or(Failure::Damaged)?;
    let made_size = size(&mut rest).ok_or(Failure::Damaged)?;
    if made_size > max_bytes {
        return Err(Failure::TooLarge);
    }
    let made_size = usize::try_from(made_size).map_err(|_| Failure::TooLarge)?;
    if base_size != base.len() as u64 {
        return Err(Failure::Damaged);
    }
    let mut made = Vec::with_capacity(made_size);
    while let Some(piece) = piece(base, &mut rest) {
        let piece = piece.filter(|piece| piece.len() <= made_size - made.len());
        made.extend_from_slice(piece.ok_or(Failure::Damaged)?);
    }
    if made.len() == made_size { Ok(made) } else { Err(Failure::Damaged) }
}

/// The next piece of what is made; `None` at the end, `Some(None)` where the delta is out of form.
fn piece<'a>(base: &'a [u8], rest: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let instruction = byte(rest)?;
    if instruction & 0x80 == 0 {
        let inserted = rest.split_at_checked(usize::from(instruction)).filter(|_| instruction > 0);
        return Some(inserted.map(|(inserted, behind)| {
            *rest = behind;
            inserted
        }));
    }
    let mut number = |bits: &[u8]| {
        bits.iter().enumerate().try_fold(0usize, |number, (position, bit)| match instruction & bit {
            0 => Some(number),
            _ => Some(number | usize::from(byte(rest)?) << (8 * position)),
        })
    };
    let offset = number(&[0x01, 0x02, 0x04, 0x08]);
    let length =
        number(&[0x10, 0x20, 0x40]).map(|length| if length == 0 { USUAL_COPY_BYTES } else { length });
    Some(offset.zip(length).and_then(|(offset, length)| base.get(offset..offset.checked_add(length)?)))
}

/// A size, seven bits a byte, the last of which come last.
fn size(rest: &mut &[u8]) -> Option<u64> {
    let mut size = 0u64;
    for shift in (0..u64::BITS).step_by(7) {
        let byte = byte(rest)?;
        size |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(size);
        }
    }
    None
}

fn byte(rest: &mut &[u8]) -> Option<u8> {
    let (first, behind) = rest.split_first()?;
    *rest = behind;
    Some(*first)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &[u8] = b"0123456789";

    #[test]
    fn pieces_are_copied_and_inserted() {
        let delta = [10, 7, 0x91, 2, 4, 3, b'a', b'b', b'c'];
        assert_eq!(apply(BASE, &delta, 7), Ok(b"2345abc".to_vec()));
        assert_eq!(apply(BASE, &delta, 6), Err(Failure::TooLarge));
        let base = vec![1; USUAL_COPY_BYTES];
        assert_eq!(apply(&base, &[0x80, 0x80, 4, 0x80, 0x80, 4, 0x80], u64::MAX), Ok(base.clone()));
    }

    #[test]
    fn a_delta_out_of_form_makes_nothing() {
        let cases: [&[u8]; 10] = [
            &[],
            &[10],
            &[9, 1, 1, b'a'],
            &[10, 1, 0],
            &[10, 2, 2, b'a'],
            &[10, 2, 1, b'a'],
            &[10, 1, 2, b'a', b'b'],
            &[10, 2, 0x91, 9, 2],
            &[10, 2, 0x91, 9],
            &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1],
        ];
        for delta in cases {
            assert_eq!(apply(BASE, delta, u64::MAX), Err(Failure::Damaged), "{delta:?}");
        }
    }
}
