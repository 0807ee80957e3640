package codec

import "bytes"

// Compact takes the white space between the tokens of a JSON text out, in place, and
// returns what is left. protojson puts spaces where another build of the same program
// puts none; what is compacted is the same everywhere. Texts that are not JSON come
// back as something that is not JSON either.
func Compact(text []byte) []byte {
	i := bytes.IndexAny(text, " \t\r\n")
	if i < 0 {
		return text
	}
	out := text[:0]
	for i = 0; i < len(text); {
		switch c := text[i]; c {
		case ' ', '\t', '\r', '\n':
			i++
		case '"':
			end := stringEnd(text, i+1)
			out = append(out, text[i:end]...)
			i = end
		default:
			out = append(out, c)
			i++
		}
	}
	return out
}

// stringEnd is behind the quote that ends the string whose text begins at from.
func stringEnd(text []byte, from int) int {
	for i := from; i < len(text); {
		n := bytes.IndexByte(text[i:], '"')
		if n < 0 {
			return len(text)
		}
		i += n + 1
		// An even number of backslashes before it stands for themselves.
		slashes := 0
		for j := i - 2; j >= from && text[j] == '\\'; j-- {
			slashes++
		}
		if slashes%2 == 0 {
			return i
		}
	}
	return len(text)
}
