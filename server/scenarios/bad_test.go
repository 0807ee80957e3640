package scenarios

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"telford.dev/telford"
	"telford.dev/telford/internal/ident"
	"telford.dev/telford/internal/link"
	"telford.dev/telford/internal/message"
)

// Whatever comes in, it gets a clear answer, and those who do nothing wrong notice
// nothing of it. Data directories that cannot be written, databases of newer versions and
// full disks have tests of their own, in cmd/telford and internal/store.
func TestBadInput(t *testing.T) { //nolint:tparallel // one after another, so that a failure has one cause
	t.Parallel()
	c := newCluster(t)
	workers := c.workers(2)
	caller := c.caller(2)
	loads := []*load{
		startLoad(t, caller, "direct", 100, time.Millisecond, telford.Transport(telford.Direct)),
		startLoad(t, caller, "proxy", 100, time.Millisecond, telford.Transport(telford.Proxy)),
	}
	for name, test := range map[string]func(t *testing.T, c *cluster, caller *telford.Service){
		"names": badNames, "keys": badKeys, "certificates": badCertificates, "garbage": garbage, "sizes": badSizes,
		"a caller that does not read": deafCaller,
	} {
		t.Run(name, func(t *testing.T) { test(t, c, caller) })
	}
	for _, l := range loads {
		l.after(t, 20)
		l.noFailure(t)
	}
	onceEach(t, c, loads...)
	for _, w := range workers {
		w.stop(t)
	}
}

// says fails unless the error says all of it.
func says(t *testing.T, what string, err error, texts ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("%s: there is no error", what)
		return
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("%s: the error does not say %q: %v", what, text, err)
		}
	}
}

func badNames(t *testing.T, c *cluster, caller *telford.Service) {
	for name, mode := range map[string]telford.TransportMode{"direct": telford.Direct, "proxy": telford.Proxy, "auto": telford.Auto} {
		_, err := telford.Call[workResp](t.Context(), caller, "work", "nothing", &workReq{}, telford.Transport(mode))
		says(t, name+": unknown method", err, "method_not_found", `"nothing"`)
		_, err = telford.Call[workResp](t.Context(), caller, "nobody", "work", &workReq{}, telford.Transport(mode), telford.MaxAttempts(1))
		says(t, name+": unknown service", err, "nobody")
	}
	_, err := c.try("call", "work", "nothing", "{}")
	says(t, "telford call, unknown method", err, "method_not_found", "nothing", "work")
	_, err = c.try("call", "nobody", "work", "{}")
	says(t, "telford call, unknown service", err, "service_not_found", "nobody")
	_, err = c.try("call", "work", "work", "{")
	says(t, "telford call, half a body", err, "JSON")
	for path, want := range map[string]int{"/call/work/nothing": http.StatusNotFound, "/call/nobody/work": http.StatusNotFound} {
		if status, body := post(t, c, path, strings.NewReader("{}")); status != want || !strings.Contains(body, "_not_found") {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
}

// post calls over HTTP as the operator.
func post(t *testing.T, c *cluster, path string, body io.Reader) (status int, text string) {
	t.Helper()
	token, err := os.ReadFile(filepath.Join(c.data, "admin.token"))
	must(t, err)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+c.http+path, body)
	must(t, err)
	req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	req.Header.Set("Content-Type", "application/json")
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	must(t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	must(t, err)
	return resp.StatusCode, string(b)
}

func badKeys(t *testing.T, c *cluster, _ *telford.Service) {
	begin := func(name, key string) error {
		s, err := telford.New(name, telford.WithServer(c.grpc), telford.WithKey(key), telford.CallerOnly())
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		defer func() { _ = s.Stop(ctx) }() // it has not started
		return s.Start(ctx)
	}
	says(t, "key of another service", begin("payments", c.key("work")), "permission_denied", "work", "payments")

	expiring := c.cli("keys", "create", "--service", "late", "--ttl", "3s")
	if err := begin("late", expiring); err != nil {
		t.Errorf("a key that has not expired: %v", err)
	}
	var err error
	within(t, 10*time.Second, "the key expires", func() bool { err = begin("late", expiring); return err != nil })
	says(t, "expired key", err, "unauthenticated", "expired")

	key := c.key("work")
	says(t, "half a key", begin("work", key[:40]), "truncated")
	swapped := []byte(key)
	swapped[len(swapped)/2] ^= 1
	says(t, "a key with another letter", begin("work", string(swapped)), "key")
}

func badCertificates(t *testing.T, c *cluster, caller *telford.Service) {
	worker := caller.ServiceMap()["work"].Instances[0]
	good := c.certify(c.key("tamper"), "tamper", "in-tamper")
	leaf := good.Certificate()
	forge := func(change func(der []byte)) *tls.Certificate {
		forged := &tls.Certificate{PrivateKey: leaf.PrivateKey}
		for _, der := range leaf.Certificate {
			forged.Certificate = append(forged.Certificate, bytes.Clone(der))
		}
		change(forged.Certificate[0])
		return forged
	}
	other := newCluster(t)
	for name, shown := range map[string]*tls.Certificate{
		"another name": forge(func(der []byte) {
			copy(der[bytes.Index(der, []byte("/i/in-tamper")):], "/i/in-temper")
		}),
		"another signature":             forge(func(der []byte) { der[len(der)-3] ^= 1 }),
		"the same from another cluster": other.certify(other.key("tamper"), "tamper", "in-tamper").Certificate(),
		"nothing":                       {},
	} {
		for where, addr := range map[string]string{"the runtime": c.grpc, "an instance": worker.Address} {
			config := good.ClientConfig(ident.Expect{Namespace: "default"}, link.ALPN)
			config.VerifyConnection = nil // it is the other end that is to judge
			config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return shown, nil }
			nc, err := dial(addr, config)
			if err == nil {
				_, err = link.Dial(t.Context(), nc, link.Options{})
				_ = nc.Close() // it was refused
			}
			if err == nil || !strings.Contains(err.Error(), "certificate") && !strings.Contains(err.Error(), "trust domain") {
				t.Errorf("%s shown to %s: %v", name, where, err)
			}
		}
	}
}

func garbage(t *testing.T, c *cluster, caller *telford.Service) {
	worker := caller.ServiceMap()["work"].Instances[0]
	trust := c.certify(c.key("noise"), "noise", "in-noise")
	noise := make([]byte, 64<<10)
	_, _ = rand.Read(noise)
	big := []byte{0xff, 0xff, 0xff, 9, 0, 0, 0, 0, 0, 0, 0, 1} // a frame of 16 MiB
	for where, to := range map[string]struct {
		addr   string
		expect ident.Expect
	}{"the runtime": {c.grpc, ident.Expect{Runtime: true}}, "an instance": {worker.Address, ident.Expect{Instance: worker.ID}}} {
		for what, bytes := range map[string][]byte{"noise": noise, "a frame that is too large": big, "nothing known": {0, 0, 0, 99, 0, 0, 0, 0, 0, 0, 0, 1}} {
			nc, err := dial(to.addr, trust.ClientConfig(to.expect, link.ALPN))
			must(t, err)
			_, _ = nc.Write(bytes) // it may be closed before all is written
			answer := readAll(t, nc)
			if !strings.Contains(answer, "protocol_error") {
				t.Errorf("%s to %s: the answer %q does not say protocol_error", what, where, clip(answer))
			}
		}
		// Before TLS, and TLS without a word after it.
		nc, err := net.Dial("tcp", to.addr)
		must(t, err)
		_, _ = nc.Write(noise) // as above
		readAll(t, nc)
	}
}

func clip(s string) string { return s[:min(len(s), 200)] }

// readAll reads until the other end closes, which it must do by itself.
func readAll(t *testing.T, nc net.Conn) string {
	t.Helper()
	defer nc.Close()
	must(t, nc.SetReadDeadline(time.Now().Add(5*time.Second)))
	b, err := io.ReadAll(nc)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the connection stays open")
	}
	return string(b)
}

func badSizes(t *testing.T, c *cluster, caller *telford.Service) {
	const limit, size = 16 << 20, 17 << 20
	both := []string{"resource_exhausted", strconv.Itoa(limit)}
	large := &workReq{ID: strings.Repeat("x", size)}
	for name, mode := range map[string]telford.TransportMode{"direct": telford.Direct, "proxy": telford.Proxy} {
		_, err := telford.Call[workResp](t.Context(), caller, "work", "work", large, telford.Transport(mode))
		says(t, "17 MiB, "+name, err, append(both, strconv.Itoa(size)[:4])...)
	}
	body := fmt.Sprintf(`{"id":%q}`, large.ID)
	if status, text := post(t, c, "/call/work/work", strings.NewReader(body)); status != http.StatusRequestEntityTooLarge || !strings.Contains(text, strconv.Itoa(limit)) {
		t.Errorf("17 MiB over HTTP: %d %s", status, clip(text))
	}
}

// deafCaller opens streams and does not read them: the senders wait, others do not.
func deafCaller(t *testing.T, c *cluster, caller *telford.Service) {
	worker := caller.ServiceMap()["work"].Instances[0]
	trust := c.certify(c.key("deaf"), "deaf", "in-deaf")
	direct, err := dialLink(t, worker.Address, trust, ident.Expect{Instance: worker.ID}, link.Options{})
	must(t, err)
	session := c.session(trust, nil, "")
	for name, l := range map[string]*link.Conn{"direct": direct, "session": session.Conn} {
		ctx, cancel := context.WithCancel(t.Context())
		var streams []message.Stream
		for range 4 {
			s, err := l.Stream(ctx, &message.Call{Service: "work", Method: "flood", Stream: true, ContentType: message.JSON, Body: []byte("{}")})
			must(t, err)
			_, err = s.Recv()
			must(t, err)
			streams = append(streams, s)
		}
		// Long enough to send gigabytes, were nobody held back.
		during(size(time.Second, time.Minute), nil)
		reply, err := l.Call(ctx, &message.Call{Service: "work", Method: "work", ContentType: message.JSON, Body: []byte(`{"id":"beside"}`)})
		if err != nil || reply.Err != nil {
			t.Errorf("%s: a call beside streams that nobody reads: %v %v", name, err, reply)
		}
		for _, s := range streams {
			s.Close()
		}
		cancel()
	}
	if kib := resident(t, c.runtime.cmd.Process.Pid); kib > 300<<10 {
		t.Errorf("the runtime holds %d KiB", kib)
	}
}

// resident is the memory of a process in KiB.
func resident(t *testing.T, pid int) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	must(t, err)
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			n, err := strconv.Atoi(strings.Fields(v)[0])
			must(t, err)
			return n
		}
	}
	t.Fatal("no VmRSS")
	return 0
}
