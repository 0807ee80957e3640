package link

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"testing"
	"time"

	"telford.dev/telford/internal/errs"
)

func TestBusyIsHeardInsteadOfAHandshake(t *testing.T) {
	t.Parallel()
	for _, after := range []time.Duration{-time.Second, 0, 300 * time.Millisecond, time.Second, 7900 * time.Millisecond, time.Hour} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		said := make(chan error, 1)
		go func() {
			nc, err := l.Accept()
			if err == nil {
				err = Busy(nc, after)
			}
			said <- err
		}()
		raw, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		o := &Opening{Conn: raw}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		err = tls.Client(o, &tls.Config{ServerName: "x", MinVersion: tls.VersionTLS13}).HandshakeContext(ctx)
		cancel()
		if err == nil || <-said != nil {
			t.Fatalf("the handshake ended with %v", err)
		}
		e := o.Busy()
		want := min(max(after, 0).Truncate(time.Second), 31*time.Second)
		if e == nil || e.Code != errs.Unavailable || !e.NotStarted || e.RetryAfter < want || e.RetryAfter >= want+time.Second {
			t.Errorf("said %s, heard %+v", after, e)
		}
		_ = raw.Close()
		_ = l.Close()
	}
}

func TestBusyIsNotSaidToJustAnybody(t *testing.T) {
	t.Parallel()
	for name, text := range map[string][]byte{
		"HTTP":          []byte("GET / HTTP/1.1\r\n\r\n"),
		"nothing":       nil,
		"half a header": {22, 3},
		"half a hello":  {22, 3, 1, 0, 100, 1, 2, 3},
		"a huge record": append([]byte{22, 3, 1, 255, 255}, bytes.Repeat([]byte{0}, 100)...),
	} {
		a, b := net.Pipe()
		go func() {
			_, _ = b.Write(text)
			_ = b.Close()
		}()
		var e *errs.Error
		if err := Busy(a, time.Second); !errors.As(err, &e) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzOpening(f *testing.F) {
	f.Add([]byte{21, 3, 3, 0, 2, 2, 224})
	f.Add([]byte{21, 3, 3, 0, 2, 2, 40})
	f.Add([]byte{22, 3, 3, 0, 122, 2, 0, 0})
	f.Fuzz(func(t *testing.T, text []byte) {
		a, b := net.Pipe()
		go func() {
			_, _ = b.Write(text)
			_ = b.Close()
		}()
		o := &Opening{Conn: a}
		var got []byte
		buf := make([]byte, 3)
		for {
			n, err := o.Read(buf)
			got = append(got, buf[:n]...)
			if err != nil {
				break
			}
		}
		if !bytes.Equal(got, text) {
			t.Fatalf("read %x of %x", got, text)
		}
		if e := o.Busy(); e != nil && (len(text) < 7 || text[0] != 21 || text[6] < 224 || e.RetryAfter > 32*time.Second) {
			t.Fatalf("%x says %v", text, e)
		}
	})
}
