//! What the JPEG decoder does not tell: whether the colours are CMYK and whether the file is cut short.

/// Why CMYK is refused.
pub const CMYK: &str =
    "has CMYK colours, expected grey or RGB: their conversion needs a colour profile, so convert it first";

/// Refuses CMYK and cut JPEG streams, which the decoder would convert by a guess and fill with grey.
pub fn check(bytes: &[u8]) -> Result<(), String> {
    // Segments are FF, marker, length (2 bytes, counting itself), content; SOI has no length.
    let mut at = 2;
    while let Some(&[0xFF, marker, high, low]) = bytes.get(at..at + 4) {
        if marker == 0xFF {
            at += 1; // A fill byte.
            continue;
        }
        let is_frame = matches!(marker, 0xC0..=0xCF) && !matches!(marker, 0xC4 | 0xC8 | 0xCC);
        // Content of a frame header: precision (1 byte), height (2), width (2), components (1).
        if is_frame && bytes.get(at + 9) == Some(&4) {
            return Err(CMYK.into());
        }
        at += 2 + usize::from(u16::from_be_bytes([high, low]));
        if marker == 0xDA {
            // Entropy-coded data holds no FF D9; only the end marker does.
            let whole = bytes.get(at..).is_some_and(|data| data.windows(2).any(|w| w == [0xFF, 0xD9]));
            return if whole { Ok(()) } else { Err(CUT.into()) };
        }
    }
    Err(CUT.into())
}

const CUT: &str = "is a JPEG that ends too early: its end marker is missing, so the file is cut or damaged";
