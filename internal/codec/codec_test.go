package codec

import (
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/message"
)

type plain struct {
	A string `json:"a"`
}

func TestRoundTrips(t *testing.T) {
	t.Parallel()
	for _, ct := range []message.ContentType{message.Proto, message.JSON} {
		b, err := Append([]byte("before"), durationpb.New(1500), ct)
		if err != nil {
			t.Fatal(err)
		}
		var d durationpb.Duration
		if err := Decode(b[len("before"):], &d, ct); err != nil || d.GetNanos() != 1500 {
			t.Errorf("%s: %v, %v", ct, &d, err)
		}
	}
	b, err := Append(nil, &plain{"x"}, message.JSON)
	if err != nil || string(b) != `{"a":"x"}` {
		t.Fatalf("%s, %v", b, err)
	}
	var p plain
	if err := Decode(b, &p, message.JSON); err != nil || p.A != "x" {
		t.Errorf("%v, %v", p, err)
	}
	if Natural(&p) != message.JSON || Natural(&structpb.Struct{}) != message.Proto {
		t.Error("the natural content types are wrong")
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	check := func(what string, err error, want errs.Code) {
		t.Helper()
		if errs.CodeOf(err) != want {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, err := Append(nil, &plain{}, message.Proto)
	check("a struct as protobuf", err, errs.InvalidArgument)
	_, err = Append(nil, func() {}, message.JSON)
	check("a function", err, errs.InvalidArgument)
	_, err = Append(nil, wrapperspb.Bytes(make([]byte, message.MaxPayload)), message.Proto)
	check("a protobuf message over the limit", err, errs.ResourceExhausted)
	_, err = Append(nil, make([]byte, message.MaxPayload), message.JSON)
	check("JSON over the limit", err, errs.ResourceExhausted)
	check("protobuf for a struct", Decode([]byte{8, 1}, &plain{}, message.Proto), errs.InvalidArgument)
	check("no content type", Decode([]byte("{}"), &plain{}, message.None), errs.InvalidArgument)
	check("broken JSON", Decode([]byte("{"), &plain{}, message.JSON), errs.InvalidArgument)
	check("another shape", Decode([]byte(`{"a":1}`), &plain{}, message.JSON), errs.InvalidArgument)
	check("broken protobuf", Decode([]byte{0xff}, &durationpb.Duration{}, message.Proto), errs.InvalidArgument)
	check("broken JSON for protobuf", Decode([]byte("{"), &durationpb.Duration{}, message.JSON), errs.InvalidArgument)
	check("an empty body", Decode(nil, &plain{}, message.JSON), "")
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"a":"x"}`), uint8(message.JSON))
	f.Add([]byte{8, 1}, uint8(message.Proto))
	f.Fuzz(func(t *testing.T, body []byte, ct uint8) {
		var p plain
		_ = Decode(body, &p, message.ContentType(ct)) // it must not panic
		var s structpb.Struct
		if Decode(body, &s, message.ContentType(ct)) != nil {
			return
		}
		b, err := Append(nil, &s, message.Proto)
		if err != nil {
			return // text that is no UTF-8 does not go out again
		}
		var again structpb.Struct
		if err := Decode(b, &again, message.Proto); err != nil || !proto.Equal(&s, &again) {
			t.Errorf("%v became %v: %v", &s, &again, err)
		}
	})
}
