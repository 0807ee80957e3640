package linkdoor_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	telfordv1 "telford.dev/telford/api/telford/v1"
	"telford.dev/telford/internal/ident"
	"telford.dev/telford/internal/message"
	"telford.dev/telford/server/internal/door/doortest"
	"telford.dev/telford/server/internal/router"
)

// The frame types, from docs/reference/link-protocol.md.
const (
	typeAccepted  = 1
	typeControl   = 3
	typePing      = 4
	typePong      = 5
	typeGoAway    = 6
	typeGoAwayAck = 7
	typeDefine    = 8
	typeOpen      = 9
	typeData      = 10
	typeReply     = 12
	typeCancel    = 13
	typeWindow    = 14
	typeClose     = 15

	flagMore = 1
)

// rawLink speaks telford/1 byte by byte, written from the document alone.
type rawLink struct {
	t     *testing.T
	nc    *tls.Conn
	names []string // defined by the runtime
	conn  int      // credit of the connection
	calls map[uint64]int
}

type rawFrame struct {
	kind, flags byte
	stream      uint64
	payload     []byte
}

func (r *runtime) raw(t *testing.T, trust *ident.Trust) *rawLink {
	t.Helper()
	l := &rawLink{t: t, nc: doortest.Dial(t, r.addr, trust, "telford/1"), conn: 4 << 20, calls: make(map[uint64]int)}
	f := l.next()
	settings := new(telfordv1.Settings)
	if f.kind != typeAccepted || f.stream != 0 || proto.Unmarshal(f.payload, settings) != nil {
		t.Fatalf("first frame %+v", f)
	}
	if settings.GetMaxFrame() != 65_536 || settings.GetStreamWindow() != 256<<10 || settings.GetConnectionWindow() != 4<<20 || settings.GetMaxPayload() != 16<<20 {
		t.Errorf("settings %v", settings)
	}
	return l
}

func (l *rawLink) write(kind, flags byte, stream uint64, payload []byte) {
	l.t.Helper()
	b := make([]byte, 12, 12+len(payload))
	n := len(payload)
	b[0], b[1], b[2], b[3] = byte(n>>16), byte(n>>8), byte(n), kind
	binary.BigEndian.PutUint64(b[4:], stream)
	b[4] = flags
	if _, err := l.nc.Write(append(b, payload...)); err != nil && !errors.Is(err, net.ErrClosed) {
		l.t.Fatal(err)
	}
}

func (l *rawLink) read() (rawFrame, error) {
	if err := l.nc.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return rawFrame{}, err
	}
	var h [12]byte
	if _, err := io.ReadFull(l.nc, h[:]); err != nil {
		return rawFrame{}, err
	}
	f := rawFrame{kind: h[3], flags: h[4], stream: binary.BigEndian.Uint64(h[4:]) &^ (0xff << 56)}
	f.payload = make([]byte, int(h[0])<<16|int(h[1])<<8|int(h[2]))
	_, err := io.ReadFull(l.nc, f.payload)
	return f, err
}

// next returns the next frame that is not bookkeeping, which it does.
func (l *rawLink) next() rawFrame {
	l.t.Helper()
	for {
		f, err := l.read()
		if err != nil {
			l.t.Fatalf("the connection ended: %v", err)
		}
		switch f.kind {
		case typeDefine:
			if n := int(binary.BigEndian.Uint16(f.payload)); n != len(l.names) {
				l.t.Fatalf("name %d was defined where %d was next", n, len(l.names))
			}
			l.names = append(l.names, string(f.payload[2:]))
		case typeWindow:
			n := int(binary.BigEndian.Uint32(f.payload))
			if f.stream == 0 {
				l.conn += n
			} else {
				l.calls[f.stream] += n
			}
			return f
		case typePing:
			l.write(typePong, 0, 0, f.payload)
		default:
			return f
		}
	}
}

// until skips frames up to one of the kind.
func (l *rawLink) until(kind byte) rawFrame {
	l.t.Helper()
	for {
		if f := l.next(); f.kind == kind {
			return f
		}
	}
}

func (l *rawLink) control(m *telfordv1.ClientMessage) {
	l.t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		l.t.Fatal(err)
	}
	// In two pieces, which the document allows.
	l.write(typeControl, flagMore, 0, b[:len(b)/2])
	l.write(typeControl, 0, 0, b[len(b)/2:])
}

// heard returns the next whole control message.
func (l *rawLink) heard() *telfordv1.ServerMessage {
	l.t.Helper()
	var b []byte
	for {
		f := l.until(typeControl)
		b = append(b, f.payload...)
		if f.flags&flagMore == 0 {
			break
		}
	}
	m := new(telfordv1.ServerMessage)
	if err := proto.Unmarshal(b, m); err != nil {
		l.t.Fatal(err)
	}
	return m
}

func (l *rawLink) hello() {
	l.t.Helper()
	l.control(&telfordv1.ClientMessage{Message: &telfordv1.ClientMessage_Hello{Hello: &telfordv1.Hello{}}})
	if m := l.heard(); m.GetHelloAck() == nil {
		l.t.Fatalf("answer to Hello: %v", m)
	}
	if m := l.heard(); m.GetRevocation() == nil || !m.GetRevocation().GetSnapshot() {
		l.t.Fatalf("after HelloAck: %v", m)
	}
	if m := l.heard(); len(m.GetRoots().GetRoots()) == 0 {
		l.t.Fatalf("behind the revocations came %v, not the roots", m)
	}
	if m := l.heard(); m.GetRules().GetRevision() == 0 {
		l.t.Fatalf("behind the roots came %v, not the rules", m)
	}
}

// str and name encode a string, and a name in full.
func str(b []byte, s string) []byte  { return append(binary.AppendUvarint(b, uint64(len(s))), s...) }
func name(b []byte, s string) []byte { return str(append(b, 0), s) }

// fields reads what str, name and uvarint have written.
type fields struct {
	t *testing.T
	b []byte
}

func (f *fields) uvarint() uint64 {
	v, n := binary.Uvarint(f.b)
	if n <= 0 {
		f.t.Fatal("a number is missing")
	}
	f.b = f.b[n:]
	return v
}

func (f *fields) str() string {
	n := f.uvarint()
	s := string(f.b[:n])
	f.b = f.b[n:]
	return s
}

func (f *fields) name(l *rawLink) string {
	n := f.uvarint()
	if n == 0 {
		return f.str()
	}
	return l.names[n-1]
}

// status reads a failure: code, gRPC code, message, flags.
func (f *fields) status() (code, text string, notStarted bool) {
	code = f.str()
	f.uvarint()
	text = f.str()
	return code, text, f.b[0]&1 != 0
}

func TestRawBytes(t *testing.T) {
	t.Parallel()
	r := start(t, doortest.Options{})
	key, _ := r.Key(t, "payments")
	l := r.raw(t, r.Certify(t, key, "payments", "pay-1"))
	l.hello()
	l.control(&telfordv1.ClientMessage{Message: &telfordv1.ClientMessage_Register{Register: doortest.Declaration("payments", "charge")}})
	if m := l.heard(); m.GetRegistered() == nil || m.GetRegistered().GetRefused() != nil {
		t.Fatalf("answer to the declaration: %v", m)
	}

	// A command of the runtime.
	answers := make(chan string, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		reply, err := r.Router.Call(ctx, &router.Request{Namespace: "default", Call: &message.Call{
			Service: "payments", Method: "charge", ContentType: message.JSON, Body: []byte(`{"cents":1}`),
			Headers: []message.Pair{{Key: "x", Value: []byte("y")}},
		}})
		if err != nil {
			answers <- err.Error()
			return
		}
		answers <- string(reply.Body)
	}()
	open := l.until(typeOpen)
	f := &fields{t, open.payload}
	mask := f.uvarint()
	if method := f.name(l); open.stream != 2 || method != "charge" || f.b[0] != 2 {
		t.Errorf("OPEN of stream %d, method %q, content type %d", open.stream, method, f.b[0])
	}
	f.b = f.b[1:]
	if mask&(1<<1) != 0 {
		if service := f.name(l); service != "payments" {
			t.Errorf("service %q", service)
		}
	}
	if mask&(1<<2) == 0 {
		t.Error("no remaining time")
	} else if left := f.uvarint(); left == 0 || left > 5_000_000 {
		t.Errorf("%d µs remain", left)
	}
	if mask&(1<<3) == 0 {
		t.Error("no headers")
	} else if n, k, v := f.uvarint(), f.name(l), f.str(); n != 1 || k != "x" || v != "y" {
		t.Errorf("%d headers, %q: %q", n, k, v)
	}
	if mask&(1<<12) == 0 {
		t.Error("the command has no number")
	}
	if !bytes.HasSuffix(f.b, []byte(`{"cents":1}`)) {
		t.Errorf("the body is not at the end: %q", f.b)
	}
	l.write(typeReply, 0, open.stream, append([]byte{0, 2}, `"done"`...))
	if got := <-answers; got != `"done"` {
		t.Errorf("answer %q", got)
	}

	// A call of this end, to a service that does not exist: mask service | number.
	block := binary.AppendUvarint(nil, 1<<1|1<<12)
	block = append(name(block, "x"), 2)
	block = binary.AppendUvarint(name(block, "nobody"), 1)
	l.write(typeOpen, 0, 1, append(block, `{}`...))
	reply := l.until(typeReply)
	f = &fields{t, reply.payload[2:]}
	if code, text, notStarted := f.status(); reply.stream != 1 || reply.payload[0]&1 == 0 || code != "service_not_found" || !strings.Contains(text, "nobody") || !notStarted {
		t.Errorf("refusal %s %q, not started %t", code, text, notStarted)
	}

	// A body of 17 MiB: refused with both numbers, and the connection goes on.
	block = binary.AppendUvarint(nil, 1<<1|1<<12)
	block = append(name(block, "charge"), 2)
	block = binary.AppendUvarint(name(block, "payments"), 2)
	l.calls[3] = 256 << 10
	l.write(typeOpen, flagMore, 3, block)
	piece := make([]byte, 16<<10)
	var refused *rawFrame
	for sent := 0; sent < 17<<20 && refused == nil; sent += len(piece) {
		for (l.conn < len(piece) || l.calls[3] < len(piece)) && refused == nil {
			if f := l.next(); f.kind == typeReply {
				refused = &f
			}
		}
		if refused == nil {
			l.write(typeData, flagMore, 3, piece)
			l.conn -= len(piece)
			l.calls[3] -= len(piece)
		}
	}
	if refused == nil {
		f := l.until(typeReply)
		refused = &f
	}
	f = &fields{t, refused.payload[2:]}
	if code, text, _ := f.status(); code != "resource_exhausted" || !strings.Contains(text, "16777216") {
		t.Errorf("17 MiB: %s %q", code, text)
	}

	// Unknown frames from 128 on are skipped; PING is answered; CANCEL of nothing is nothing.
	l.write(200, 0xff, 77, []byte("whatever"))
	l.write(typeCancel, 0, 999, nil)
	l.write(typePing, 0, 0, []byte("12345678"))
	if pong := l.until(typePong); string(pong.payload) != "12345678" {
		t.Errorf("PONG %q", pong.payload)
	}
	l.write(typeGoAway, 0, 0, nil)
	l.until(typeGoAwayAck)
}

func TestRawGarbage(t *testing.T) {
	t.Parallel()
	r := start(t, doortest.Options{})
	key, _ := r.Key(t, "payments")
	trust := r.Certify(t, key, "payments", "pay-1")
	for what, write := range map[string]func(l *rawLink){
		"an unknown type below 128":    func(l *rawLink) { l.write(99, 0, 0, nil) },
		"a length over the limit":      func(l *rawLink) { _, _ = l.nc.Write([]byte{0xff, 0xff, 0xff, typeData, 0, 0, 0, 0, 0, 0, 0, 1}) },
		"HTTP":                         func(l *rawLink) { _, _ = l.nc.Write([]byte("POST /call/payments/charge HTTP/1.1\r\nHost: x\r\n\r\n")) },
		"a call block that ends early": func(l *rawLink) { l.write(typeOpen, 0, 1, []byte{0xff}) },
		"a name that was not defined":  func(l *rawLink) { l.write(typeOpen, 0, 1, []byte{0, 42, 2}) },
		"an even stream of the dialer": func(l *rawLink) { l.write(typeOpen, 0, 2, append(name([]byte{0}, "x"), 2)) },
		"a stream opened twice": func(l *rawLink) {
			l.write(typeOpen, 0, 3, append(name([]byte{0}, "x"), 2))
			l.write(typeOpen, 0, 3, append(name([]byte{0}, "x"), 2))
		},
		"a PING of three bytes":          func(l *rawLink) { l.write(typePing, 0, 0, []byte("abc")) },
		"a WINDOW of nothing":            func(l *rawLink) { l.write(typeWindow, 0, 0, []byte{0, 0, 0, 0}) },
		"a name out of turn":             func(l *rawLink) { l.write(typeDefine, 0, 0, []byte{0, 9, 'x'}) },
		"a control message that is none": func(l *rawLink) { l.write(typeControl, 0, 0, []byte{0xff, 0xff}) },
	} {
		l := r.raw(t, trust)
		write(l)
		for {
			f, err := l.read()
			if err != nil {
				t.Errorf("%s: ended without CLOSE: %v", what, err)
				break
			}
			if f.kind != typeClose {
				continue
			}
			in := &fields{t, f.payload}
			if code, text, _ := in.status(); code == "" || text == "" {
				t.Errorf("%s: CLOSE says %q %q", what, code, text)
			}
			if f, err := l.read(); err == nil {
				t.Errorf("%s: a frame of type %d came after CLOSE", what, f.kind)
			} else if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%s: the connection stays open after CLOSE", what)
			}
			break
		}
		_ = l.nc.Close()
	}
	// Nothing of it hurts another session.
	_, w := payments(t, r, "pay-2", doortest.Echo())
	if _, err := r.charge(t.Context(), `{}`); err != nil {
		t.Error(err, w.Err())
	}
}
