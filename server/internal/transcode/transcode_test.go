package transcode_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/message"
	"telford.dev/telford/server/internal/transcode"
)

func field(name string, number int32, kind descriptorpb.FieldDescriptorProto_Type, change ...func(*descriptorpb.FieldDescriptorProto)) *descriptorpb.FieldDescriptorProto {
	f := &descriptorpb.FieldDescriptorProto{
		Name: proto.String(name), Number: proto.Int32(number), Type: kind.Enum(),
		Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(),
	}
	for _, c := range change {
		c(f)
	}
	return f
}

func of(name string) func(*descriptorpb.FieldDescriptorProto) {
	return func(f *descriptorpb.FieldDescriptorProto) { f.TypeName = proto.String(name) }
}

func repeated(f *descriptorpb.FieldDescriptorProto) {
	f.Label = descriptorpb.FieldDescriptorProto_LABEL_REPEATED.Enum()
}

const (
	tString  = descriptorpb.FieldDescriptorProto_TYPE_STRING
	tInt64   = descriptorpb.FieldDescriptorProto_TYPE_INT64
	tBytes   = descriptorpb.FieldDescriptorProto_TYPE_BYTES
	tBool    = descriptorpb.FieldDescriptorProto_TYPE_BOOL
	tDouble  = descriptorpb.FieldDescriptorProto_TYPE_DOUBLE
	tMessage = descriptorpb.FieldDescriptorProto_TYPE_MESSAGE
)

// shop returns the descriptors of a small service; the timestamp's own file is left out,
// as some generators do.
func shop() []byte {
	fds := &descriptorpb.FileDescriptorSet{File: []*descriptorpb.FileDescriptorProto{{
		Name: proto.String("shop/v1/payments.proto"), Package: proto.String("shop.v1"), Syntax: proto.String("proto3"),
		Dependency: []string{"google/protobuf/timestamp.proto"},
		MessageType: []*descriptorpb.DescriptorProto{
			{Name: proto.String("ChargeRequest"), Field: []*descriptorpb.FieldDescriptorProto{
				field("order_id", 1, tString), field("amount_cents", 2, tInt64), field("token", 3, tBytes),
				field("items", 4, tMessage, of(".shop.v1.Item"), repeated),
				field("at", 5, tMessage, of(".google.protobuf.Timestamp")), field("rate", 6, tDouble),
			}},
			{Name: proto.String("Item"), Field: []*descriptorpb.FieldDescriptorProto{
				field("a_rather_long_name_that_json_spells_out", 1, tString), field("another_rather_long_name", 2, tString),
			}},
			{Name: proto.String("ChargeReply"), Field: []*descriptorpb.FieldDescriptorProto{
				field("accepted", 1, tBool), field("balance_cents", 2, tInt64),
			}},
		},
	}}}
	b, err := proto.Marshal(fds)
	if err != nil {
		panic(err)
	}
	return b
}

func method(t testing.TB, change ...func(*catalog.Declaration, *catalog.Method)) *transcode.Method {
	t.Helper()
	d := &catalog.Declaration{Service: "payments", Descriptors: shop()}
	m := &catalog.Method{
		Name: "shop.v1.Payments/Charge", ContentTypes: []string{"proto"},
		InputMessage: "shop.v1.ChargeRequest", OutputMessage: "shop.v1.ChargeReply",
	}
	for _, c := range change {
		c(d, m)
	}
	return transcode.New(transcode.Options{}).Method(d, m)
}

func takes(types ...string) func(*catalog.Declaration, *catalog.Method) {
	return func(_ *catalog.Declaration, m *catalog.Method) { m.ContentTypes = types }
}

func TestBytesPassThrough(t *testing.T) {
	t.Parallel()
	body := []byte("\xff not of any type")
	for name, m := range map[string]*transcode.Method{
		"same type":      method(t),
		"proto and json": method(t, takes("json", "proto")),
		"not declared": method(t, takes(), func(d *catalog.Declaration, m *catalog.Method) {
			m.InputMessage, m.OutputMessage, d.Descriptors = "", "", nil
		}),
	} {
		types := map[string][]message.ContentType{
			"same type": {message.Proto}, "proto and json": {message.Proto, message.JSON},
			"not declared": {message.Proto, message.JSON, message.Msgpack, message.None},
		}[name]
		for _, c := range types {
			to, out, err := m.Request(c, body)
			if err != nil || to != c || &out[0] != &body[0] {
				t.Errorf("%s: %s became %s, %q, %v", name, c, to, out, err)
			}
			if back, err := m.Reply(c, c, body); err != nil || &back[0] != &body[0] {
				t.Errorf("%s: the answer in %s became %q, %v", name, c, back, err)
			}
		}
	}
}

func TestJSONCallsProto(t *testing.T) {
	t.Parallel()
	m := method(t)
	in := `{"order_id":"o-1","amount_cents":"9007199254740993","token":"AAH/","items":[{"another_rather_long_name":"x"}],"at":"2026-05-06T07:08:09Z","rate":0.5}`
	to, out, err := m.Request(message.JSON, []byte(in))
	if err != nil || to != message.Proto {
		t.Fatalf("to %s: %v", to, err)
	}
	for what, want := range map[string][]byte{
		"order":  protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), "o-1"),
		"amount": protowire.AppendVarint(protowire.AppendTag(nil, 2, protowire.VarintType), 9007199254740993),
		"token":  protowire.AppendBytes(protowire.AppendTag(nil, 3, protowire.BytesType), []byte{0, 1, 255}),
	} {
		if !bytes.Contains(out, want) {
			t.Errorf("the %s is not in %x", what, out)
		}
	}
	// The reply: unset fields are there, names are those of the proto file, 64 bits are
	// text.
	reply := protowire.AppendVarint(protowire.AppendTag(nil, 2, protowire.VarintType), 12)
	got, err := m.Reply(message.Proto, message.JSON, reply)
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"accepted":false,"balance_cents":"12"}`; string(got) != want {
		t.Errorf("the answer is %s, want %s", got, want)
	}
	if to, out, err := m.Request(message.JSON, nil); err != nil || to != message.Proto || len(out) != 0 {
		t.Errorf("no body at all: %s %x %v", to, out, err)
	}
}

func decoded(t testing.TB, b []byte) any {
	t.Helper()
	var v any
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%s: %v", b, err)
	}
	return v
}

func TestProtoCallsJSON(t *testing.T) {
	t.Parallel()
	m := method(t, takes("json"))
	body := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), "o-2")
	to, out, err := m.Request(message.Proto, body)
	if err != nil || to != message.JSON {
		t.Fatalf("to %s: %v", to, err)
	}
	want := map[string]any{"order_id": "o-2", "amount_cents": "0", "token": "", "items": []any{}, "at": nil, "rate": json.Number("0")}
	if d := cmp.Diff(want, decoded(t, out)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	got, err := m.Reply(message.JSON, message.Proto, []byte(`{"accepted":true}`))
	if err != nil || !bytes.Equal(got, []byte{8, 1}) {
		t.Errorf("the answer is %x, %v", got, err)
	}
}

func TestMsgpackCallsProto(t *testing.T) {
	t.Parallel()
	m := method(t)
	in, err := transcode.JSONToMsgpack([]byte(`{"order_id":"o-3","amount_cents":5}`))
	if err != nil {
		t.Fatal(err)
	}
	to, out, err := m.Request(message.Msgpack, in)
	if err != nil || to != message.Proto {
		t.Fatalf("to %s: %v", to, err)
	}
	viaJSON, _, _ := bytesOf(m.Request(message.JSON, []byte(`{"order_id":"o-3","amount_cents":5}`)))
	if !bytes.Equal(out, viaJSON) {
		t.Errorf("from msgpack %x, from JSON %x", out, viaJSON)
	}
	reply, err := m.Reply(message.Proto, message.Msgpack, []byte{8, 1})
	if err != nil {
		t.Fatal(err)
	}
	back, err := transcode.MsgpackToJSON(reply)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(map[string]any{"accepted": true, "balance_cents": "0"}, decoded(t, back)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func bytesOf(c message.ContentType, b []byte, err error) ([]byte, message.ContentType, error) {
	return b, c, err
}

func TestChoiceOfTheType(t *testing.T) {
	t.Parallel()
	undescribed := func(d *catalog.Declaration, _ *catalog.Method) { d.Descriptors = nil }
	for name, c := range map[string]struct {
		m    *transcode.Method
		from message.ContentType
		body string
		want message.ContentType
	}{
		"json to proto rather than msgpack":   {method(t, takes("proto", "msgpack")), message.JSON, `{}`, message.Proto},
		"json to msgpack without descriptors": {method(t, takes("proto", "msgpack"), undescribed), message.JSON, `{}`, message.Msgpack},
		"msgpack to json rather than proto":   {method(t, takes("proto", "json")), message.Msgpack, "\x80", message.JSON},
		"proto to json rather than msgpack":   {method(t, takes("msgpack", "json")), message.Proto, "", message.JSON},
		"proto to msgpack":                    {method(t, takes("msgpack")), message.Proto, "", message.Msgpack},
		"input message alone means proto":     {method(t, takes()), message.JSON, `{}`, message.Proto},
		"no type and no body":                 {method(t), message.None, "", message.None},
	} {
		to, _, err := c.m.Request(c.from, []byte(c.body))
		if err != nil || to != c.want {
			t.Errorf("%s: became %s, %v", name, to, err)
		}
	}
}

func TestRefusedRequestsNameWhatIsWrong(t *testing.T) {
	t.Parallel()
	with := func(change func(*catalog.Declaration, *catalog.Method)) *transcode.Method { return method(t, change) }
	for name, c := range map[string]struct {
		m    *transcode.Method
		from message.ContentType
		body string
		says []string
	}{
		"unknown field":  {method(t), message.JSON, `{"amout":5}`, []string{`unknown field "amout"`, "shop.v1.ChargeRequest", "payments/shop.v1.Payments/Charge"}},
		"wrong type":     {method(t), message.JSON, `{"amount_cents":"a lot"}`, []string{"amountCents", "shop.v1.ChargeRequest"}},
		"not JSON":       {method(t), message.JSON, `{`, []string{"shop.v1.ChargeRequest"}},
		"not msgpack":    {method(t), message.Msgpack, "\xc1", []string{"msgpack"}},
		"not proto":      {method(t, takes("json")), message.Proto, "\x0a\xff", []string{"shop.v1.ChargeRequest"}},
		"no type":        {method(t), message.None, "x", []string{"no content type", "proto"}},
		"no descriptors": {with(func(d *catalog.Declaration, _ *catalog.Method) { d.Descriptors = nil }), message.JSON, `{}`, []string{"registered no descriptors", "takes proto"}},
		"no input": {
			with(func(_ *catalog.Declaration, m *catalog.Method) { m.InputMessage = "" }), message.JSON, `{}`,
			[]string{"no input message"},
		},
		"no output": {
			with(func(_ *catalog.Declaration, m *catalog.Method) { m.OutputMessage = "" }), message.JSON, `{}`,
			[]string{"no output message"},
		},
		"undefined input": {
			with(func(_ *catalog.Declaration, m *catalog.Method) { m.InputMessage = "shop.v1.Nope" }), message.JSON, `{}`,
			[]string{"do not define its input message shop.v1.Nope"},
		},
		"undefined output": {
			with(func(_ *catalog.Declaration, m *catalog.Method) { m.OutputMessage = "shop.v1.ChargeReply.accepted" }), message.JSON, `{}`,
			[]string{"do not define its output message"},
		},
		"garbage descriptors": {
			with(func(d *catalog.Declaration, _ *catalog.Method) { d.Descriptors = []byte("\xff\xff") }), message.JSON, `{}`,
			[]string{"cannot be used"},
		},
	} {
		_, _, err := c.m.Request(c.from, []byte(c.body))
		e := errs.From(err)
		if e == nil || e.Code != errs.InvalidArgument {
			t.Errorf("%s: %v, want invalid_argument", name, err)
			continue
		}
		for _, s := range c.says {
			if !strings.Contains(e.Message, s) {
				t.Errorf("%s: the message does not say %q: %s", name, s, e.Message)
			}
		}
		if strings.ContainsRune(e.Message, '\u00a0') {
			t.Errorf("%s: the message has a space that is none: %q", name, e.Message)
		}
	}
}

func TestAnswersThatCannotBeGivenAreInternal(t *testing.T) {
	t.Parallel()
	m := method(t, takes("json", "msgpack", "proto"))
	for name, c := range map[string]struct {
		from, want message.ContentType
		body       string
	}{
		"not proto":   {message.Proto, message.JSON, "\xff"},
		"not msgpack": {message.Msgpack, message.JSON, "\xc1"},
		"not JSON":    {message.JSON, message.Proto, "{"},
		"no type":     {message.None, message.JSON, "x"},
	} {
		if _, err := m.Reply(c.from, c.want, []byte(c.body)); errs.CodeOf(err) != errs.Internal {
			t.Errorf("%s: %v, want internal", name, err)
		}
	}
}

func TestSmallProtoThatIsHugeAsJSONIsRefused(t *testing.T) {
	t.Parallel()
	m := method(t, takes("json"))
	// 240,000 empty items: two bytes each, and seventy or more as JSON.
	body := bytes.Repeat([]byte{4<<3 | 2, 0}, 240_000)
	_, _, err := m.Request(message.Proto, body)
	e := errs.From(err)
	if e == nil || e.Code != errs.ResourceExhausted || e.Retryable || !strings.Contains(e.Message, "16777216") {
		t.Errorf("%v, want resource_exhausted with the limit, not to be retried", err)
	}
	if _, out, err := m.Request(message.Proto, body[:2000]); err != nil || len(decoded(t, out).(map[string]any)["items"].([]any)) != 1000 {
		t.Errorf("1,000 items: %v", err)
	}
}

func TestBodiesOfTooManyMessagesAreRefused(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		m    *transcode.Method
		from message.ContentType
		body []byte
	}{
		"proto": {method(t, takes("json")), message.Proto, bytes.Repeat([]byte{4<<3 | 2, 0}, 1<<18+1)},
		"json":  {method(t), message.JSON, []byte(`{"items":[{}` + strings.Repeat(`,{}`, 1<<18) + `]}`)},
	} {
		_, _, err := c.m.Request(c.from, c.body)
		e := errs.From(err)
		if e == nil || e.Code != errs.ResourceExhausted || e.Retryable || !strings.Contains(e.Message, "262144 messages") {
			t.Errorf("%s: %v, want resource_exhausted with the limit", name, err)
		}
	}
	many := `{"order_id":"` + strings.Repeat(`{\"`, 1<<18) + `"}`
	if _, _, err := method(t).Request(message.JSON, []byte(many)); err != nil {
		t.Errorf("brackets in a string are counted: %v", err)
	}
}

func TestSetsAreParsedOnceAndForgotten(t *testing.T) {
	t.Parallel()
	x := transcode.New(transcode.Options{MaxSets: 2, MaxSetBytes: 1 << 20})
	call := func(descriptors []byte) error {
		m := x.Method(&catalog.Declaration{Service: "s", Descriptors: descriptors}, &catalog.Method{
			Name: "m", ContentTypes: []string{"proto"}, InputMessage: "shop.v1.ChargeRequest", OutputMessage: "shop.v1.ChargeReply",
		})
		_, _, err := m.Request(message.JSON, []byte(`{}`))
		return err
	}
	for i := range 5 {
		fds := new(descriptorpb.FileDescriptorSet)
		if err := proto.Unmarshal(shop(), fds); err != nil {
			t.Fatal(err)
		}
		fds.File = append(fds.File, &descriptorpb.FileDescriptorProto{Name: proto.String(strings.Repeat("x", i+1) + ".proto")})
		b, err := proto.Marshal(fds)
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if err := call(b); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n := x.Sets(); n != 2 {
		t.Errorf("%d sets are kept, want 2", n)
	}
	if err := call(make([]byte, 2<<20)); err == nil || !strings.Contains(err.Error(), "2097152 bytes") {
		t.Errorf("descriptors over the limit: %v", err)
	}
}

func TestDescriptorsThatBringTheWellKnownFiles(t *testing.T) {
	t.Parallel()
	m := method(t, func(d *catalog.Declaration, _ *catalog.Method) {
		fds := new(descriptorpb.FileDescriptorSet)
		if err := proto.Unmarshal(d.Descriptors, fds); err != nil {
			t.Fatal(err)
		}
		fds.File = append(fds.File, protodesc.ToFileDescriptorProto(timestamppb.File_google_protobuf_timestamp_proto))
		d.Descriptors, _ = proto.Marshal(fds)
	})
	if _, _, err := m.Request(message.JSON, []byte(`{"at":"2026-01-01T00:00:00Z"}`)); err != nil {
		t.Error(err)
	}
}
