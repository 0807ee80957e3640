package transcode_test

import (
	"bytes"
	"encoding/json"
	"testing"
	"unicode/utf8"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/message"
	"telford.dev/telford/server/internal/transcode"
)

// refusal accepts an error that blames the body.
func refusal(t *testing.T, err error) bool {
	t.Helper()
	if err == nil {
		return false
	}
	if c := errs.CodeOf(err); c != errs.InvalidArgument && c != errs.ResourceExhausted {
		t.Fatalf("a bad body is blamed on %s: %v", c, err)
	}
	return true
}

func FuzzJSONToMsgpack(f *testing.F) {
	for _, s := range []string{`{"a":[1,2.5,"x\u00e9",null,true]}`, `[[],{},""]`, `18446744073709551616`, `"\ud800"`, `-0`, ` {"a" : {"b":{}} , "c":[ ]} `} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		packed, err := transcode.JSONToMsgpack(in)
		if refusal(t, err) || len(in) == 0 {
			return
		}
		if !json.Valid(in) {
			t.Fatalf("%q is not JSON and was taken", in)
		}
		back, err := transcode.MsgpackToJSON(packed)
		if err != nil {
			t.Fatalf("%q became %x, which is refused: %v", in, packed, err)
		}
		again, err := transcode.JSONToMsgpack(back)
		if err != nil {
			t.Fatalf("%q came back as %q, which is refused: %v", in, back, err)
		}
		if !bytes.Equal(packed, again) {
			t.Fatalf("%q: %x became %x", in, packed, again)
		}
	})
}

func FuzzMsgpackToJSON(f *testing.F) {
	for _, s := range []string{"\x82\xa1a\x01\xa1b\x92\xc0\xc3", "\xd6\xff\x00\x00\x00\x01", "\xdd\xff\xff\xff\xff", "\xc4\x01a", "\xca\x3d\xcc\xcc\xcd", "\xc7\x0c\xff000000000000"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		out, err := transcode.MsgpackToJSON(in)
		if refusal(t, err) || len(in) == 0 {
			return
		}
		if !json.Valid(out) || !utf8.Valid(out) {
			t.Fatalf("%x became %q, which is not JSON", in, out)
		}
		if _, err := transcode.JSONToMsgpack(out); err != nil {
			t.Fatalf("%x became %q, which is refused: %v", in, out, err)
		}
	})
}

func FuzzJSONToProto(f *testing.F) {
	f.Add([]byte(`{"order_id":"o","amount_cents":"5","token":"AA==","items":[{}],"at":"2026-01-01T00:00:00Z","rate":"NaN"}`))
	f.Add([]byte(`{"orderId":null}`))
	m, back := method(f), method(f, takes("json"))
	f.Fuzz(func(t *testing.T, in []byte) {
		_, out, err := m.Request(message.JSON, in)
		if refusal(t, err) {
			return
		}
		if _, _, err := back.Request(message.Proto, out); err != nil {
			t.Fatalf("%q became %x, which is refused: %v", in, out, err)
		}
	})
}

func FuzzProtoToJSON(f *testing.F) {
	f.Add([]byte("\x0a\x01o\x10\x05"))
	f.Add([]byte("\x22\x00\x22\x02\x0a\x00\x2a\x04\x08\x01\x10\x02"))
	m, back := method(f, takes("json")), method(f)
	f.Fuzz(func(t *testing.T, in []byte) {
		_, out, err := m.Request(message.Proto, in)
		if refusal(t, err) {
			return
		}
		if _, _, err := back.Request(message.JSON, out); err != nil {
			t.Fatalf("%x became %q, which is refused: %v", in, out, err)
		}
	})
}

func FuzzDescriptors(f *testing.F) {
	f.Add(shop(), []byte(`{"order_id":"o"}`))
	f.Add([]byte("\x0a\x02\x0a\x00"), []byte(`{}`))
	f.Fuzz(func(t *testing.T, descriptors, body []byte) {
		m := transcode.New(transcode.Options{}).Method(&catalog.Declaration{Service: "s", Descriptors: descriptors}, &catalog.Method{
			Name: "m", ContentTypes: []string{"proto"}, InputMessage: "shop.v1.ChargeRequest", OutputMessage: "shop.v1.ChargeReply",
		})
		_, _, err := m.Request(message.JSON, body)
		refusal(t, err)
		_, err = m.Reply(message.Proto, message.JSON, body)
		if c := errs.CodeOf(err); err != nil && c != errs.Internal && c != errs.ResourceExhausted {
			t.Fatalf("a bad answer is %s: %v", c, err)
		}
	})
}
