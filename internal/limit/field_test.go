package limit

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
	"pgregory.net/rapid"

	"telford.dev/telford/internal/message"
)

func jsonOf(body, name string) string {
	f := Facts{ContentType: message.JSON, Body: []byte(body)}
	return f.field(name).text()
}

func TestFieldsOfJSON(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]string{
		`{"tenant":"a"}`: "a",
		` { "x" : {"tenant":"b"} , "tenant" : "a" } `: "a",
		`{"x":[1,{"tenant":"}"}],"tenant":"a"}`:       "a",
		`{"tenant":"a","tenant":"b"}`:                 "b",
		`{"Tenant":"a"}`:                              "a",
		`{"\u0074enant":"\u00e4\n"}`:                  "ä\n",
		`{"tenant":12}`:                               "12",
		`{"tenant":1.20e1}`:                           "12",
		`{"tenant":-0}`:                               "0",
		`{"tenant":12345678901234567890123}`:          "12345678901234567890123",
		`{"tenant":0.5}`:                              "0.5",
		`{"tenant":true}`:                             "true",
		`{"tenant":null}`:                             "",
		`{"tenant":["a"]}`:                            "",
		`{"tenant":{"a":1}}`:                          "",
		`{}`:                                          "",
		``:                                            "",
		`[{"tenant":"a"}]`:                            "",
		`{"tenant":"a`:                                "",
		`{"x":"\"","tenant":"a"`:                      "a",
		`{"tenant":}`:                                 "",
		`{"a":1,,"tenant":"a"}`:                       "",
		`{"x":"` + strings.Repeat("y", 1000) + `","tenant":"a"}`: "a",
	} {
		if got := jsonOf(body, "tenant"); got != want {
			t.Errorf("%s: %q, want %q", body, got, want)
		}
	}
}

// The scan finds what decoding would.
func FuzzFieldOfJSON(f *testing.F) {
	for _, s := range []string{`{"tenant":"a"}`, `{"a":[{"b":"\\"}],"tenant":1.5e3}`, `{"tenant":{}}`, `{"TENANT":"x","tenant":null}`, "\x7b\"\xff\":1}"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		got := jsonOf(string(body), "tenant")
		var in struct {
			Tenant json.RawMessage `json:"tenant"`
		}
		if !json.Valid(body) || json.Unmarshal(body, &in) != nil {
			return
		}
		var text string
		var number json.Number
		switch raw := bytes.TrimSpace(in.Tenant); {
		case len(raw) == 0 || raw[0] == 'n' || raw[0] == '{' || raw[0] == '[':
			if got != "" {
				t.Fatalf("%q has no text and the scan found %q", raw, got)
			}
		case raw[0] == '"':
			if json.Unmarshal(raw, &text) == nil && got != text {
				t.Fatalf("%q, the scan found %q", text, got)
			}
		case raw[0] == 't' || raw[0] == 'f':
			if got != string(raw) {
				t.Fatalf("%s, the scan found %q", raw, got)
			}
		default:
			if json.Unmarshal(raw, &number) == nil && got != numberText(string(number)) {
				t.Fatalf("%s, the scan found %q", number, got)
			}
		}
	})
}

func TestFieldsOfMsgpack(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]string{
		"\x81\xa6tenant\xa1a":                                "a",
		"\x82\xa1x\x81\xa6tenant\xa1b\xa6tenant\xa1a":        "a",
		"\xde\x00\x02\xa1x\x92\x01\xc4\x02ab\xa6tenant\x0c":  "12",
		"\x81\xa6Tenant\xd0\xf4":                             "-12",
		"\x81\xa6tenant\xd2\xff\xff\xff\xf4":                 "-12",
		"\x81\xa6tenant\xcd\x01\x00":                         "256",
		"\x81\xa6tenant\xf4":                                 "-12",
		"\x81\xa6tenant\xcb\x40\x28\x00\x00\x00\x00\x00\x00": "12",
		"\x81\xa6tenant\xca\x3f\x00\x00\x00":                 "0.5",
		"\x81\xa6tenant\xc3":                                 "true",
		"\x81\xa6tenant\xc0":                                 "",
		"\x81\xa6tenant\x91\x01":                             "",
		"\x81\xd9\x06tenant\xd9\x01a":                        "a",
		"\x82\xa1x\xd6\xff\x00\x00\x00\x00\xa6tenant\xa1a":   "a",
		"\x82\xa1x\xc7\x03\x01abc\xa6tenant\xa1a":            "a",
		"\xdf\x7f\xff\xff\xff\xa1x":                          "",
		"\x81\xa1x\xdd\xff\xff\xff\xff":                      "",
		"\x91\xa6tenant":                                     "",
		"":                                                   "",
		"\x81":                                               "",
		"\x81\xa6tenant\xd9\xff":                             "",
	} {
		f := Facts{ContentType: message.Msgpack, Body: []byte(body)}
		if got := f.field("tenant").text(); got != want {
			t.Errorf("%x: %q, want %q", body, got, want)
		}
	}
}

func FuzzFieldOfMsgpack(f *testing.F) {
	f.Add([]byte("\x82\xa1x\x81\xa6tenant\xa1b\xa6tenant\xa1a"))
	f.Add([]byte("\xdf\xff\xff\xff\xff\xdc\xff\xff"))
	f.Fuzz(func(t *testing.T, body []byte) {
		f := Facts{ContentType: message.Msgpack, Body: body}
		if got := f.field("tenant").text(); len(got) > len(body)+400 {
			t.Fatalf("%d bytes came out of %d", len(got), len(body))
		}
	})
}

// The same request gives the same key as protobuf, as JSON by either name and decoded.
func TestFieldsOfProtobuf(t *testing.T) {
	t.Parallel()
	desc := (&descriptorpb.FieldDescriptorProto{}).ProtoReflect().Descriptor()
	rapid.Check(t, func(t *rapid.T) {
		m := &descriptorpb.FieldDescriptorProto{}
		if rapid.Bool().Draw(t, "has") {
			m.JsonName = proto.String(rapid.String().Draw(t, "json_name"))
			m.Number = proto.Int32(rapid.Int32().Draw(t, "number"))
			m.Type = rapid.SampledFrom([]descriptorpb.FieldDescriptorProto_Type{1, 2, 18}).Draw(t, "type").Enum()
			m.Proto3Optional = proto.Bool(rapid.Bool().Draw(t, "optional"))
		}
		m.Options = &descriptorpb.FieldOptions{Lazy: proto.Bool(true)}
		wire, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		names := rapid.Bool().Draw(t, "names")
		text, err := protojson.MarshalOptions{UseProtoNames: names, UseEnumNumbers: rapid.Bool().Draw(t, "enums")}.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"json_name", "jsonName", "number", "type", "proto3_optional"} {
			decoded := Facts{Message: m}
			want := decoded.field(name).text()
			for what, f := range map[string]Facts{
				"proto": {ContentType: message.Proto, Body: wire, Input: desc},
				"json":  {ContentType: message.JSON, Body: text, Input: desc},
			} {
				if got := f.field(name).text(); got != want {
					t.Fatalf("%s as %s: %q, decoded %q", name, what, got, want)
				}
			}
		}
		for _, name := range []string{"options", "nothing"} {
			f := Facts{ContentType: message.Proto, Body: wire, Input: desc}
			if got := f.field(name).text(); got != "" || FieldOf(desc, name) != nil {
				t.Fatalf("%s is %q", name, got)
			}
		}
	})
}

func TestKindsOfProtobuf(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		m    proto.Message
		want string
	}{
		{wrapperspb.Bool(true), "true"},
		{wrapperspb.Bool(false), "false"},
		{wrapperspb.Int32(-7), "-7"},
		{wrapperspb.Int64(-1 << 62), "-4611686018427387904"},
		{wrapperspb.UInt32(7), "7"},
		{wrapperspb.UInt64(1 << 63), "9223372036854775808"},
		{wrapperspb.Double(0.1), "0.1"},
		{wrapperspb.Double(1e300), "1e+300"},
		{wrapperspb.Float(0.5), "0.5"},
		{wrapperspb.String("ä"), "ä"},
		{wrapperspb.Bytes([]byte{0, 255}), "\x00\xff"},
	} {
		b, err := proto.Marshal(c.m)
		if err != nil {
			t.Fatal(err)
		}
		f := Facts{ContentType: message.Proto, Body: b, Input: c.m.ProtoReflect().Descriptor()}
		if got := f.field("value").text(); got != c.want {
			t.Errorf("%T: %q, want %q", c.m, got, c.want)
		}
	}
	fd := (&wrapperspb.BytesValue{}).ProtoReflect().Descriptor().Fields().ByName("value")
	if got := jsonField([]byte(`{"value":"`+base64.URLEncoding.EncodeToString([]byte{255, 239, 1})+`"}`), "value", fd).text(); got != "\xff\xef\x01" {
		t.Errorf("bytes in JSON: %q", got)
	}
	for kind, want := range map[protoreflect.Kind]int64{protoreflect.Sint32Kind: -3, protoreflect.Sint64Kind: -3} {
		if v, ok := varintValue(kind, protowire.EncodeZigZag(-3)); !ok || v.Int() != want {
			t.Errorf("%v: %v", kind, v)
		}
	}
	// The last of several holds, and what does not fit is skipped.
	fd = (&wrapperspb.StringValue{}).ProtoReflect().Descriptor().Fields().ByName("value")
	if got := protoField([]byte("\x0a\x01a\x0a\x01b\x08\x07\xff"), fd); got != "b" {
		t.Errorf("got %q", got)
	}
}

func FuzzFieldOfProtobuf(f *testing.F) {
	f.Add([]byte("\x0a\x01a\x18\x05"))
	desc := (&descriptorpb.FieldDescriptorProto{}).ProtoReflect().Descriptor()
	f.Fuzz(func(t *testing.T, body []byte) {
		m := &descriptorpb.FieldDescriptorProto{}
		err := proto.Unmarshal(body, m)
		for _, name := range []string{"name", "number", "proto3_optional"} {
			scanned, decoded := Facts{ContentType: message.Proto, Body: body, Input: desc}, Facts{Message: m}
			if got, want := scanned.field(name).text(), decoded.field(name).text(); err == nil && got != want {
				t.Fatalf("%s is %q, decoded %q", name, got, want)
			}
		}
	})
}
