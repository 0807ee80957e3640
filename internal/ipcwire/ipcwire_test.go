package ipcwire_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"

	"telford.dev/telford/internal/ipcwire"
)

func TestReader(t *testing.T) {
	t.Parallel()
	large := bytes.Repeat([]byte("x"), 300<<10)
	var stream []byte
	bodies := [][]byte{[]byte("{}"), {}, large, []byte("after")}
	for _, b := range bodies {
		stream = ipcwire.AppendFrame(stream, b)
	}
	for name, src := range map[string]io.Reader{"at once": bytes.NewReader(stream), "byte by byte": iotest.OneByteReader(bytes.NewReader(stream))} {
		r := ipcwire.NewReader(src, 0)
		for i, want := range bodies {
			frame, err := r.Next()
			if err != nil || !bytes.Equal(frame, ipcwire.AppendFrame(nil, want)) {
				t.Fatalf("%s: frame %d: %d bytes, %v", name, i, len(frame), err)
			}
		}
		if _, err := r.Next(); !errors.Is(err, io.EOF) {
			t.Errorf("%s: at the end: %v", name, err)
		}
	}
	r := ipcwire.NewReader(bytes.NewReader(stream[:len(stream)-1]), 0)
	var err error
	for err == nil {
		_, err = r.Next()
	}
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("inside a frame: %v", err)
	}
}

// A length that is only announced costs nothing, and one over the limit is refused.
func TestReaderTrustsNoLength(t *testing.T) {
	t.Parallel()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	r := ipcwire.NewReader(strings.NewReader("\x03\xff\xff\xffabc"), 0)
	if _, err := r.Next(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("error %v", err)
	}
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 16<<20 {
		t.Errorf("%d bytes were allocated for a length that was only announced", grown)
	}
	for _, head := range []string{"\xff\xff\xff\xff", "\x04\x00\x00\x01"} {
		if _, err := ipcwire.NewReader(strings.NewReader(head), 0).Next(); !errors.Is(err, ipcwire.ErrFrameTooLarge) {
			t.Errorf("%x: error %v", head, err)
		}
	}
	if _, _, err := ipcwire.Split([]byte{0, 0, 0, 9}, 8); !errors.Is(err, ipcwire.ErrFrameTooLarge) {
		t.Errorf("split: %v", err)
	}
	bodies, rest, err := ipcwire.Split([]byte("\x00\x00\x00\x01a\x00\x00\x00\x00\x00\x00"), 0)
	if err != nil || len(bodies) != 2 || string(bodies[0]) != "a" || len(rest) != 2 {
		t.Errorf("split: %q, rest %q, %v", bodies, rest, err)
	}
}

func TestScanRefuses(t *testing.T) {
	t.Parallel()
	deep := strings.Repeat("[", 2000) + strings.Repeat("]", 2000)
	for _, c := range []struct {
		body string
		enc  ipcwire.Encoding
		want string
	}{
		{"", ipcwire.JSON, "empty"},
		{`{"type":"CALL"`, ipcwire.JSON, "ends after"},
		{`{"type":"CALL"}x`, ipcwire.JSON, "the end of the message"},
		{`{"a":01}`, ipcwire.JSON, "comma"},
		{"{\"a\":\"\n\"}", ipcwire.JSON, "control"},
		{`{"a":"\x"}`, ipcwire.JSON, "escape"},
		{`{"a":tru}`, ipcwire.JSON, "true"},
		{`{a:1}`, ipcwire.JSON, "a string"},
		{`{"a":` + deep + `}`, ipcwire.JSON, "deep"},
		{"\x81\xa1a", ipcwire.Msgpack, "expected"},
		{"\x81\xa1a\xc1", ipcwire.Msgpack, "0xc1"},
		{"\x80\x00", ipcwire.Msgpack, "follow"},
		{"\xdf\xff\xff\xff\xff", ipcwire.Msgpack, "expected"},
		{"\x81\xa1a\xdb\xff\xff\xff\xff", ipcwire.Msgpack, "expected"},
		{"\x81\xa1a\xd4\x05\x00", ipcwire.Msgpack, "extension 5"},
		{"\x81\xa1a" + strings.Repeat("\x91", 2000) + "\x00", ipcwire.Msgpack, "deep"},
		{"\x01", ipcwire.Unknown, "0x01"},
	} {
		var e ipcwire.Envelope
		if err := e.Scan([]byte(c.body), c.enc); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.20q: error %v, want %q in it", c.body, err, c.want)
		}
	}
}

func TestValues(t *testing.T) {
	t.Parallel()
	scan := func(body string) ipcwire.Envelope {
		var e ipcwire.Envelope
		if err := e.Scan([]byte(body), ipcwire.Detect([]byte(body))); err != nil {
			t.Fatalf("%q: %v", body, err)
		}
		return e
	}
	e := scan(`{"ty\u0070e":"C\u0041LL","id":"\ud83d\ude00\n","to":7,"type":"CALL","context":{"deadline":1e3,"depth":2}}`)
	if !e.Type.Is("CALL") || !e.ID.Is("😀\n") || e.To.Shown() != "7" {
		t.Errorf("type %q, id %q, to %q", e.Type.Text, e.ID.Text, e.To.Shown())
	}
	if c := e.ReadContext(); c.Deadline != 1000 || c.Depth != 2 {
		t.Errorf("context %+v", c)
	}
	// The last of a field that comes twice holds, also over what the first had inside.
	if e := scan(`{"context":{"deadline":1},"context":{}}`); e.Deadline.Present() {
		t.Error("the deadline of a context that was overwritten")
	}
	for body, want := range map[string]bool{`{"type":""}`: false, `{"type":0}`: false, `{"type":null}`: false, `{"type":[]}`: true, `{}`: false, "\x81\xa4type\xc3": true, "\x81\xa4type\xd4\x00\x00": false} {
		if e := scan(body); e.Type.Truthy() != want {
			t.Errorf("%q: %v", body, !want)
		}
	}
	// Integers of 64 bits are read, and rewritten in place before they go on.
	body := []byte("\x81\xa7context\x82\xa8deadline\xcf\x00\x00\x01\xa1\xf7\xbf\x88\x00\xa5depth\xd3\x00\x00\x00\x00\x00\x00\x00\x02")
	if err := e.Scan(body, ipcwire.Msgpack); err != nil {
		t.Fatal(err)
	}
	before := e.ReadContext()
	e.Narrow()
	if err := e.Scan(body, ipcwire.Msgpack); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, e.ReadContext()); diff != "" || before.Depth != 2 || before.Deadline < 1<<40 {
		t.Errorf("%+v; changed by narrowing:\n%s", before, diff)
	}
	if e.Deadline.Raw[0] != 0xcb || e.Depth.Raw[0] != 0xcb {
		t.Errorf("deadline %x, depth %x", e.Deadline.Raw, e.Depth.Raw)
	}
}

func TestTranscodeValues(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ msgpack, json string }{
		{"\xc4\x02\x01\xff", `{"type":"Buffer","data":[1,255]}`},
		{"\xd6\xff\x00\x00\x00\x01", `"1970-01-01T00:00:01.000Z"`},
		{"\x82\xa1a\xd4\x00\x00\xa1b\x01", `{"b":1}`},
		{"\x92\xd4\x00\x00\x01", `[null,1]`},
		{"\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00", `null`},
		{"\xd3\xff\xff\xff\xff\xff\xff\xff\xff", `-1`},
		{"\xcf\xff\xff\xff\xff\xff\xff\xff\xff", `18446744073709551615`},
		{"\x81\x05\x01", `{"5":1}`},
		{"\xa3a\xffb", "\"a\uFFFDb\""},
		{"\xcb\x3f\xe0\x00\x00\x00\x00\x00\x00", `0.5`},
	} {
		got, err := ipcwire.Transcode(nil, []byte(c.msgpack), ipcwire.Msgpack, ipcwire.BlobsAsBuffers)
		if err != nil || string(got) != c.json {
			t.Errorf("%x: %s, %v; want %s", c.msgpack, got, err, c.json)
		}
	}
	many := "[" + strings.Repeat("1,", 70000) + "1]"
	packed, err := ipcwire.Transcode(nil, []byte(many), ipcwire.JSON, 0)
	if err != nil || !bytes.HasPrefix(packed, []byte{0xdd, 0, 1, 0x11, 0x71, 1}) {
		t.Fatalf("%x, %v", packed[:min(8, len(packed))], err)
	}
	if back, err := ipcwire.Transcode(nil, packed, ipcwire.Msgpack, 0); err != nil || string(back) != many {
		t.Errorf("a long list came back otherwise: %v", err)
	}
}

func TestContext(t *testing.T) {
	t.Parallel()
	now := time.UnixMilli(1_000_000)
	c := ipcwire.NewContext("a", "root-1", now.Add(time.Second))
	inner := c.Extend("b").Extend("c")
	want := ipcwire.Context{Root: "root-1", Chain: []string{"a", "b", "c"}, Depth: 3, Deadline: 1_001_000}
	if diff := cmp.Diff(want, inner); diff != "" {
		t.Errorf("extended (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"a"}, c.Chain); diff != "" {
		t.Errorf("the outer context changed:\n%s", diff)
	}
	if c.Exceeded(now.Add(time.Second)) || !c.Exceeded(now.Add(time.Second+time.Millisecond)) {
		t.Error("the deadline is exceeded strictly behind it")
	}
	if c.Remaining(now) != time.Second || c.Remaining(now.Add(time.Hour)) != 0 {
		t.Errorf("remaining %v", c.Remaining(now))
	}
	for range 97 {
		inner = inner.Extend("x")
	}
	if inner.TooDeep() || !inner.Extend("x").TooDeep() {
		t.Errorf("depth %d: too deep %v", inner.Depth, inner.TooDeep())
	}
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
	for _, bad := range []ipcwire.Context{{}, {Root: "r"}, {Root: "r", Chain: []string{"a"}}, {Root: "r", Chain: []string{"a"}, Depth: 1, Deadline: -1}} {
		if bad.Validate() == nil {
			t.Errorf("%+v was found good", bad)
		}
	}
}

func FuzzReader(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x02{}\x00\x00\x00\x00"))
	f.Add([]byte("\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, stream []byte) {
		r := ipcwire.NewReader(iotest.HalfReader(bytes.NewReader(stream)), 1<<16)
		var again []byte
		for {
			frame, err := r.Next()
			if err != nil {
				break
			}
			again = append(again, frame...)
		}
		if !bytes.HasPrefix(stream, again) {
			t.Fatalf("read %x of %x", again, stream)
		}
	})
}

// What the scanner takes, every JSON decoder takes, and the other way round.
func FuzzScanJSON(f *testing.F) {
	for _, s := range []string{jsonCall, jsonUnknown, `{"a":[1,-0.5e+3,true,null,"\u00e4"]}`, `{"a":{}}`, "[]", `"x"`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var e ipcwire.Envelope
		err := e.Scan(body, ipcwire.JSON)
		if valid := json.Valid(body); valid != (err == nil) && !strings.Contains(errorText(err), "deep") {
			t.Fatalf("%q: valid %v, scanned with %v", body, valid, err)
		}
		if err != nil {
			return
		}
		packed, err := ipcwire.Transcode(nil, body, ipcwire.JSON, 0)
		if err != nil {
			t.Fatalf("%q is good and cannot be rewritten: %v", body, err)
		}
		if err := e.Scan(packed, ipcwire.Msgpack); err != nil {
			t.Fatalf("%q became %x: %v", body, packed, err)
		}
	})
}

func FuzzScanMsgpack(f *testing.F) {
	for _, s := range []string{register, call, unknown, pooled} {
		f.Add(unhex(f, s)[ipcwire.HeaderSize:])
	}
	f.Add([]byte("\x82\xc4\x01a\x01\xa1b\xd6\xff\x00\x00\x00\x01"))
	f.Fuzz(func(t *testing.T, body []byte) {
		var e ipcwire.Envelope
		if e.Scan(body, ipcwire.Msgpack) != nil {
			return
		}
		e.Narrow()
		_ = e.ReadContext().Format()
		text, err := ipcwire.Transcode(nil, body, ipcwire.Msgpack, ipcwire.BlobsAsBuffers)
		if err == nil && !json.Valid(text) {
			t.Fatalf("%x became %s", body, text)
		}
	})
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
