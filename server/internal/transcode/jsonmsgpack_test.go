package transcode_test

import (
	"bytes"
	"encoding/json"
	"math"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vmihailenco/msgpack/v5"
	"pgregory.net/rapid"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/server/internal/transcode"
)

func TestJSONToMsgpack(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		`null`:                               "\xc0",
		`true`:                               "\xc3",
		` [ ] `:                              "\x90",
		`{}`:                                 "\x80",
		`[[],[[]],{}]`:                       "\x93\x90\x91\x90\x80",
		`{"a":{"b":[1,"x",false]},"c":null}`: "\x82\xa1a\x81\xa1b\x93\x01\xa1x\xc2\xa1c\xc0",
		`-1`:                                 "\xff",
		`9007199254740993`:                   "\xcf\x00\x20\x00\x00\x00\x00\x00\x01",
		`18446744073709551615`:               "\xcf\xff\xff\xff\xff\xff\xff\xff\xff",
		`-9223372036854775808`:               "\xd3\x80\x00\x00\x00\x00\x00\x00\x00",
		`1.5`:                                "\xcb\x3f\xf8\x00\x00\x00\x00\x00\x00",
		`1e2`:                                "\xcb\x40\x59\x00\x00\x00\x00\x00\x00",
		`"\u00e9\n\"\\"`:                     "\xa5\xc3\xa9\n\"\\",
		`"\ud83d\ude00"`:                     "\xa4\xf0\x9f\x98\x80",
		`"\ufffd` + "\uFFFD" + `"`:           "\xa6\xef\xbf\xbd\xef\xbf\xbd",
		`"[{,}]"`:                            "\xa5[{,}]",
		`{"a":1,"a":2}`:                      "\x82\xa1a\x01\xa1a\x02",
		``:                                   "",
	} {
		got, err := transcode.JSONToMsgpack([]byte(in))
		if err != nil || string(got) != want {
			t.Errorf("%s became %x, %v; want %x", in, got, err, want)
		}
	}
}

func TestMsgpackToJSON(t *testing.T) {
	t.Parallel()
	stamp := func(at time.Time) string {
		b, err := msgpack.Marshal(at)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	for in, want := range map[string]string{
		"":                                     ``,
		"\xc0":                                 `null`,
		"\xcf\xff\xff\xff\xff\xff\xff\xff\xff": `18446744073709551615`,
		"\xd3\x80\x00\x00\x00\x00\x00\x00\x00": `-9223372036854775808`,
		"\xcd\x01\x00":                         `256`,
		"\xd0\x80":                             `-128`,
		"\xca\x3d\xcc\xcc\xcd":                 `0.1`,
		"\xcb\x44\xb5\x2d\x02\xc7\xe1\x4a\xf6": `1e+23`,
		"\xca\x40\x00\x00\x00":                 `2.0`,
		"\xca\x61\x30\x30\x30":                 `203131200000000000000.0`,
		"\xc4\x03\x00\x01\xff":                 `"AAH/"`,
		"\xa4\"\\\n\x01":                       `"\"\\\n\u0001"`,
		"\x92\x90\x80":                         `[[],{}]`,
		"\x83\xa1a\x01\x05\xa1b\xff\xc2":       `{"a":1,"5":"b","-1":false}`,
		"\xdc\x00\x01\xc0":                     `[null]`,
		"\xdf\x00\x00\x00\x01\xa1k\xc3":        `{"k":true}`,
		stamp(time.Unix(1, 0)):                 `"1970-01-01T00:00:01Z"`,
		stamp(time.Unix(1_700_000_000, 5)):     `"2023-11-14T22:13:20.000000005Z"`,
		stamp(time.Unix(-1, 500)):              `"1969-12-31T23:59:59.0000005Z"`,
		stamp(time.Unix(253_402_300_799, 0)):   `"9999-12-31T23:59:59Z"`,
	} {
		got, err := transcode.MsgpackToJSON([]byte(in))
		if err != nil || string(got) != want {
			t.Errorf("%x became %s, %v; want %s", in, got, err, want)
		}
	}
}

func TestRefusedBodiesNameWhatIsWrong(t *testing.T) {
	t.Parallel()
	for in, says := range map[string]string{
		`{"a":}`:                  "not JSON",
		`1 2`:                     "not JSON",
		"\"\xff\"":                "UTF-8",
		`"\ud800"`:                "surrogate",
		`"\ud800\ufffd"`:          "surrogate",
		`18446744073709551616`:    "18446744073709551616",
		`[1e400]`:                 "1e400",
		strings.Repeat("[", 2e4):  "not JSON",
		strings.Repeat("1", 1000): strings.Repeat("1", 64) + "...",
	} {
		check(t, in, says, transcode.JSONToMsgpack)
	}
	for in, says := range map[string]string{
		"\xc1":                                 "0xc1",
		"\xc0\xc0":                             "1 bytes follow",
		"\x92\xc0":                             "ends in the middle",
		"\xdd\xff\xff\xff\xff":                 "ends in the middle",
		"\xdb\xff\xff\xff\xff":                 "ends in the middle",
		"\xcb\x7f\xf8\x00\x00\x00\x00\x00\x01": "NaN",
		"\xca\x7f\x80\x00\x00":                 "Inf",
		"\xa1\xff":                             "UTF-8",
		"\x81\xc0\x01":                         "0xc0",
		"\x81\xc4\x01a\x01":                    "0xc4",
		"\xd4\x07\x00":                         "type 7",
		"\xd5\xff\x00\x00":                     "2 bytes",
		"\xc7\x0d\xff0123456789012":            "13 bytes",
		"\xd7\xff\xff\xff\xff\xff\x00\x00\x00\x00":                     "1073741823 ns",
		"\xc7\x0c\xff\x00\x00\x00\x00\x7f\xff\xff\xff\xff\xff\xff\xff": "years",
		strings.Repeat("\x91", 20_000):                                 "nests deeper",
	} {
		check(t, in, says, transcode.MsgpackToJSON)
	}
}

func check(t *testing.T, in, says string, turn func([]byte) ([]byte, error)) {
	t.Helper()
	_, err := turn([]byte(in))
	if errs.CodeOf(err) != errs.InvalidArgument || !strings.Contains(err.Error(), says) {
		t.Errorf("%.40q: %v, want invalid_argument that says %q", in, err, says)
	}
}

// TestRoundTrip: what JSON can say comes back from msgpack as it was, and what the
// msgpack library reads is what encoding/json reads.
func TestRoundTrip(t *testing.T) {
	t.Parallel()
	var value func(depth int) *rapid.Generator[any]
	value = func(depth int) *rapid.Generator[any] {
		return rapid.Custom(func(t *rapid.T) any {
			n := 5
			if depth > 0 {
				n = 7
			}
			switch rapid.IntRange(0, n).Draw(t, "kind") {
			case 0:
				return nil
			case 1:
				return rapid.Bool().Draw(t, "bool")
			case 2:
				return rapid.Int64().Draw(t, "int")
			case 3:
				return rapid.Uint64Range(math.MaxInt64, math.MaxUint64).Draw(t, "uint")
			case 4:
				// Between 64 bits and 1e21 encoding/json writes a float as an integer, which is
				// refused: its digits are more than a float holds.
				return rapid.Float64Range(-1e300, 1e300).Filter(func(f float64) bool {
					return math.Abs(f) < 1<<62 || math.Abs(f) > 1e21
				}).Draw(t, "float") + 0.5
			case 5:
				return rapid.String().Draw(t, "string")
			case 6:
				return rapid.SliceOfN(value(depth-1), 0, 20).Draw(t, "list")
			default:
				return rapid.MapOfN(rapid.String(), value(depth-1), 0, 20).Draw(t, "map")
			}
		})
	}
	rapid.Check(t, func(t *rapid.T) {
		text, err := json.Marshal(value(3).Draw(t, "value"))
		if err != nil {
			t.Fatal(err)
		}
		packed, err := transcode.JSONToMsgpack(text)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		back, err := transcode.MsgpackToJSON(packed)
		if err != nil {
			t.Fatalf("%s as %x: %v", text, packed, err)
		}
		if d := cmp.Diff(number(t, text), number(t, back)); d != "" {
			t.Fatalf("(-before +after):\n%s", d)
		}
		if _, err := msgpack.NewDecoder(bytes.NewReader(packed)).DecodeInterface(); err != nil {
			t.Fatalf("the library does not read %x: %v", packed, err)
		}
	})
}

// number decodes with numbers in one spelling.
func number(t *rapid.T, b []byte) any {
	var v any
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%s: %v", b, err)
	}
	return spell(v)
}

func spell(v any) any {
	switch v := v.(type) {
	case json.Number:
		if !strings.ContainsAny(v.String(), ".eE") {
			return v.String()
		}
		f, _ := v.Float64()
		return f
	case []any:
		for i := range v {
			v[i] = spell(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = spell(v[k])
		}
	}
	return v
}

func TestLengthsThatLieCostNothing(t *testing.T) { //nolint:paralleltest // it measures what the process allocates
	for name, body := range map[string]string{
		"a string":                 "\xdb\xee\xee\xee\xeeabc",
		"binary":                   "\xc6\xee\xee\xee\xeeabc",
		"the key of a map":         "\x81\xdb\xee\xee\xee\xeeabc",
		"an array":                 "\xdd\xee\xee\xee\xee\x01",
		"a map":                    "\xdf\xee\xee\xee\xee\xa1a\x01",
		"an extension":             "\xc9\xee\xee\xee\xee\xffabc",
		"a string after a string":  "\x92\xa1a\xdb\xee\xee\xee\xeeabc",
		"binary in a deeper array": "\x91\x91\xc6\x00\xff\xff\xffabc",
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range 10 {
			if _, err := transcode.MsgpackToJSON([]byte(body)); errs.CodeOf(err) != errs.InvalidArgument {
				t.Errorf("%s: %v", name, err)
			}
		}
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 {
			t.Errorf("%s: ten bodies of %d bytes took %d bytes of memory", name, len(body), n)
		}
	}
}
