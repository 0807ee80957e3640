package scenarios

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/proto"

	telfordv1 "telford.dev/telford/api/telford/v1"
	"telford.dev/telford/internal/clock"
	"telford.dev/telford/internal/ident"
	"telford.dev/telford/internal/link"
	"telford.dev/telford/internal/message"
)

// certify provisions an instance without an SDK.
func (c *cluster) certify(key, service, instance string) *ident.Trust {
	c.t.Helper()
	trust, err := c.provision(key, service, instance)
	must(c.t, err)
	return trust
}

func (c *cluster) provision(key, service, instance string) (*ident.Trust, error) {
	c.t.Helper()
	k, err := ident.ParseKey(key)
	must(c.t, err)
	private, csr, err := ident.NewRequest()
	must(c.t, err)
	cc, err := grpc.NewClient(c.grpc, grpc.WithTransportCredentials(credentials.NewTLS(ident.PinnedConfig(k, clock.Real()))))
	must(c.t, err)
	defer cc.Close()
	ctx, cancel := context.WithTimeout(c.t.Context(), patience)
	defer cancel()
	answer, err := telfordv1.NewIdentityClient(cc).Provision(ctx, &telfordv1.ProvisionRequest{
		KeyId: k.ID, Secret: k.Secret[:], Csr: csr, Service: service, Instance: instance,
	})
	if err != nil {
		return nil, err
	}
	cert, err := ident.Certificate(answer.GetChain(), private)
	must(c.t, err)
	roots, err := ident.ParseCertificates(answer.GetRoots())
	must(c.t, err)
	trust := ident.NewTrust(clock.Real())
	trust.SetRoots(roots)
	must(c.t, trust.SetCertificate(cert))
	return trust, nil
}

// dial opens a TLS connection.
func dial(addr string, config *tls.Config) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	nc, err := (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return nc.(*tls.Conn), nil
}

// dialLink opens a link, which ends with the test.
func dialLink(t testing.TB, addr string, trust *ident.Trust, expect ident.Expect, opt link.Options) (*link.Conn, error) {
	nc, err := dial(addr, trust.ClientConfig(expect, link.ALPN))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := link.Dial(ctx, nc, opt)
	if err == nil {
		t.Cleanup(func() { conn.Close(nil) })
	}
	return conn, err
}

// rawSession is a session of an instance that follows no rule by itself.
type rawSession struct {
	*link.Conn
	t        testing.TB
	messages chan *telfordv1.ServerMessage
}

// session opens one and registers the service with a unary method.
func (c *cluster) session(trust *ident.Trust, handler message.Handler, method string) *rawSession {
	c.t.Helper()
	s := &rawSession{t: c.t, messages: make(chan *telfordv1.ServerMessage, 1024)}
	var err error
	s.Conn, err = dialLink(c.t, c.grpc, trust, ident.Expect{Runtime: true}, link.Options{Handler: handler, KeepRunning: true, Control: func(b []byte) {
		m := new(telfordv1.ServerMessage)
		if proto.Unmarshal(b, m) != nil {
			return
		}
		select {
		case s.messages <- m:
		default: // nobody reads any more
		}
	}})
	must(c.t, err)
	id := trust.Identity()
	s.say(&telfordv1.ClientMessage{Message: &telfordv1.ClientMessage_Hello{Hello: &telfordv1.Hello{Service: id.Service, Instance: id.Instance}}})
	s.await(func(m *telfordv1.ServerMessage) bool { return m.GetHelloAck() != nil })
	if method == "" {
		return s
	}
	s.say(&telfordv1.ClientMessage{Message: &telfordv1.ClientMessage_Register{Register: &telfordv1.Declaration{
		Service: id.Service, Status: telfordv1.InstanceStatus_INSTANCE_STATUS_OK,
		Methods: []*telfordv1.Method{{
			Name: method, Kind: telfordv1.MethodKind_METHOD_KIND_UNARY, ContentTypes: []string{"json"}, Contract: c.contract(method),
		}},
	}}})
	s.await(func(m *telfordv1.ServerMessage) bool { return m.GetRegistered() != nil })
	return s
}

// contract is that of a method of the workers; instances of another would have the calls
// to themselves, or none.
func (c *cluster) contract(method string) string {
	c.t.Helper()
	var service struct {
		Methods []struct{ Name, Contract string } `json:"methods"`
	}
	must(c.t, json.Unmarshal([]byte(c.cli("services", "get", "work", "--json")), &service))
	for _, m := range service.Methods {
		if m.Name == method {
			return m.Contract
		}
	}
	c.t.Fatalf("no worker has a method %q", method)
	return ""
}

func (s *rawSession) say(m *telfordv1.ClientMessage) {
	s.t.Helper()
	b, err := proto.Marshal(m)
	must(s.t, err)
	_ = s.Control(b) // a connection that has ended shows elsewhere
}

// await skips messages until one fits.
func (s *rawSession) await(fits func(*telfordv1.ServerMessage) bool) {
	s.t.Helper()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	for {
		select {
		case m := <-s.messages:
			if fits(m) {
				return
			}
		case <-s.Done():
			s.t.Fatalf("the connection has ended: %v", s.Err())
		case <-limit.C:
			s.t.Fatal("an answer of the runtime is missing")
		}
	}
}
