package codec_test

import (
	"bytes"
	"encoding/json"
	"testing"

	"google.golang.org/protobuf/types/known/structpb"

	"telford.dev/telford/internal/codec"
	"telford.dev/telford/internal/message"
)

var texts = []string{
	``, `{}`, `[1, 2,  3]`, ` { "a" : "b c" , "d":[ true ,null] } `, "{\n\t\"a\": 1\r\n}", `"a \" b"`, `["\\", " ", "\\\" , "]`,
	`"no end `, `"no end \`, `{"ü": "é è"}`, `"\u0020 "`, `[" "]`,
}

func TestCompact(t *testing.T) {
	t.Parallel()
	for _, text := range texts {
		var want bytes.Buffer
		if json.Compact(&want, []byte(text)) != nil {
			codec.Compact([]byte(text)) // whatever it says
			continue
		}
		if got := codec.Compact([]byte(text)); string(got) != want.String() {
			t.Errorf("%q became %q, want %q", text, got, want.String())
		}
	}
}

func FuzzCompact(f *testing.F) {
	for _, text := range texts {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var want bytes.Buffer
		err := json.Compact(&want, text)
		got := codec.Compact(bytes.Clone(text))
		if err == nil && !bytes.Equal(got, want.Bytes()) {
			t.Errorf("%q became %q, want %q", text, got, want.Bytes())
		}
	})
}

// TestJSONOfMessagesIsStable: protojson alone would make it differ from build to build.
func TestJSONOfMessagesIsStable(t *testing.T) {
	t.Parallel()
	m, err := structpb.NewStruct(map[string]any{"a": 1, "b": []any{"x, y", true}, "c": map[string]any{"d": nil, "e": " "}})
	if err != nil {
		t.Fatal(err)
	}
	got, err := codec.Append([]byte("[ "), m, message.JSON)
	if want := `[ {"a":1,"b":["x, y",true],"c":{"d":null,"e":" "}}`; err != nil || string(got) != want {
		t.Errorf("%s, %v, want %s", got, err, want)
	}
}

func BenchmarkCompact(b *testing.B) {
	text := bytes.Repeat([]byte(`{"order_id":"o-1", "amount_cents":"1299","items":[{"name":"x"}, {}], "rate":0.5},`), 100)
	buf := make([]byte, len(text))
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		codec.Compact(buf[:copy(buf, text)])
	}
}
