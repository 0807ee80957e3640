package transcode

import (
	"bytes"
	"encoding/json"
	"math"
	"strconv"
	"unicode/utf8"

	"github.com/vmihailenco/msgpack/v5"

	"telford.dev/telford/internal/errs"
)

// JSONToMsgpack writes one JSON value as msgpack. Order and repeats of keys are kept.
// Failures are invalid_argument.
func JSONToMsgpack(body []byte) ([]byte, error) {
	if len(body) == 0 {
		return nil, nil
	}
	switch {
	case !utf8.Valid(body):
		return nil, errs.New(errs.InvalidArgument, "the body is not JSON: it is not UTF-8")
	case !json.Valid(body):
		return nil, errs.New(errs.InvalidArgument, "the body is not JSON: %s", syntaxError(body))
	}
	// msgpack says the size of a container before its content, so that a first pass
	// counts. The text is known to be valid, which makes both passes simple.
	w := jsonWalker{in: body, sizes: containerSizes(body)}
	var out bytes.Buffer
	out.Grow(len(body))
	enc := msgpack.GetEncoder()
	defer msgpack.PutEncoder(enc)
	enc.Reset(&out)
	w.enc = enc
	for w.at < len(w.in) {
		if err := w.token(); err != nil {
			return nil, err
		}
	}
	return out.Bytes(), fits(out.Len(), "msgpack")
}

func syntaxError(body []byte) string {
	var v json.RawMessage
	if err := json.Unmarshal(body, &v); err != nil {
		return err.Error()
	}
	return "it does not parse"
}

// containerSizes returns the number of members of each container of a valid JSON text,
// in the order in which the containers open.
func containerSizes(in []byte) []int {
	var sizes, open []int
	empty := false // nothing has followed the last opening bracket
	for i := 0; i < len(in); i++ {
		switch in[i] {
		case '{', '[':
			if empty {
				sizes[open[len(open)-1]] = 1
			}
			open = append(open, len(sizes))
			sizes = append(sizes, 0)
			empty = true
		case '}', ']':
			open = open[:len(open)-1]
			empty = false
		case ',':
			sizes[open[len(open)-1]]++
		case ' ', '\t', '\r', '\n', ':':
		default:
			if empty {
				sizes[open[len(open)-1]] = 1
				empty = false
			}
			if in[i] == '"' {
				i = stringEnd(in, i) - 1
			}
		}
	}
	return sizes
}

// stringEnd returns the index behind the string that begins at i.
func stringEnd(in []byte, i int) int {
	for i++; in[i] != '"'; i++ {
		if in[i] == '\\' {
			i++
		}
	}
	return i + 1
}

// jsonWalker writes the tokens of a valid JSON text as they come; brackets, commas and
// colons need nothing of their own once the sizes are known.
type jsonWalker struct {
	in    []byte
	at    int
	sizes []int
	enc   *msgpack.Encoder
}

func (w *jsonWalker) token() error {
	switch c := w.in[w.at]; c {
	case ' ', '\t', '\r', '\n', ':', ',', '}', ']':
		w.at++
		return nil
	case '{', '[':
		w.at++
		n := w.sizes[0]
		w.sizes = w.sizes[1:]
		if c == '{' {
			return w.enc.EncodeMapLen(n)
		}
		return w.enc.EncodeArrayLen(n)
	case '"':
		end := stringEnd(w.in, w.at)
		s, err := unquote(w.in[w.at:end])
		w.at = end
		if err != nil {
			return err
		}
		return w.enc.EncodeString(s)
	case 't':
		w.at += len("true")
		return w.enc.EncodeBool(true)
	case 'f':
		w.at += len("false")
		return w.enc.EncodeBool(false)
	case 'n':
		w.at += len("null")
		return w.enc.EncodeNil()
	default:
		return w.number()
	}
}

func (w *jsonWalker) number() error {
	end, integer := w.at, true
	for end < len(w.in) {
		switch c := w.in[end]; {
		case c >= '0' && c <= '9', c == '-':
		case c == '+', c == '.', c == 'e', c == 'E':
			integer = false
		default:
			goto done
		}
		end++
	}
done:
	text := string(w.in[w.at:end])
	w.at = end
	if !integer {
		f, err := strconv.ParseFloat(text, 64)
		if err != nil || math.IsInf(f, 0) {
			return errs.New(errs.InvalidArgument, "the number %s is larger than a 64-bit float: send it as a string", clip(text))
		}
		return w.enc.EncodeFloat64(f)
	}
	if i, err := strconv.ParseInt(text, 10, 64); err == nil {
		return w.enc.EncodeInt(i)
	}
	u, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return errs.New(errs.InvalidArgument, "the integer %s does not fit in 64 bits: send it as a string", clip(text))
	}
	return w.enc.EncodeUint(u)
}

// unquote returns the text of a valid JSON string. Half of a surrogate pair, which has
// no UTF-8, is refused rather than replaced.
func unquote(quoted []byte) (string, error) {
	inner := quoted[1 : len(quoted)-1]
	if bytes.IndexByte(inner, '\\') < 0 {
		return string(inner), nil
	}
	var s string
	if err := json.Unmarshal(quoted, &s); err != nil {
		return "", errs.New(errs.InvalidArgument, "the body is not JSON: %w", err)
	}
	if countReplacements(s) != bytes.Count(inner, []byte("\uFFFD"))+countEscapedReplacements(inner) {
		return "", errs.New(errs.InvalidArgument, "the string %s has half of a surrogate pair: write the whole pair or the character itself", clip(string(quoted)))
	}
	return s, nil
}

func countReplacements(s string) int {
	n := 0
	for _, r := range s {
		if r == utf8.RuneError {
			n++
		}
	}
	return n
}

func countEscapedReplacements(inner []byte) int {
	n := 0
	for i := 0; i < len(inner); i++ {
		if inner[i] != '\\' {
			continue
		}
		if i+6 <= len(inner) && bytes.EqualFold(inner[i:i+6], []byte(`\ufffd`)) {
			n++
		}
		i++
	}
	return n
}

// clip shortens a value for a message.
func clip(s string) string {
	const most = 64
	if len(s) <= most {
		return s
	}
	cut := most
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "..."
}
