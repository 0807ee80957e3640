package client

import (
	"context"
	"crypto/tls"
	"net"
	"time"

	"google.golang.org/protobuf/proto"

	telfordv1 "telford.dev/telford/api/telford/v1"
	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/ident"
	"telford.dev/telford/internal/link"
	"telford.dev/telford/internal/session"
)

const (
	connectTimeout = 10 * time.Second
	helloTimeout   = 10 * time.Second
	// maxMail is how many control messages may wait to be handled.
	maxMail = 1024
)

// port is one connection of the session.
type port struct {
	s    *Session
	conn *link.Conn
	mail chan *telfordv1.ServerMessage
	// fault is why this end gives the connection up.
	fault chan error
	// dialed is closed once conn is set, adopted once the connection carries the session.
	dialed, adopted chan struct{}
	ack             *telfordv1.HelloAck
	// dial numbers the connections; epoch is the process of the runtime at its other end,
	// of the reader.
	dial, epoch uint64
	// own is the certificate that was shown on it; notAfter when the runtime closes it,
	// with the sooner of the two certificates.
	own      *tls.Certificate
	notAfter time.Time
	// worked: the runtime has confirmed the registration on it. Of the goroutine that
	// drives the session.
	worked bool
	// parts is the watch on this connection, of the goroutine that drives the session.
	parts catalog.Parts
	// asking: a watch was asked for on it whose snapshot has not come; askAgain: more is
	// wanted since. Of the same goroutine.
	asking, askAgain bool
}

func newPort(s *Session) *port {
	return &port{
		s: s, dial: s.dials.Add(1), mail: make(chan *telfordv1.ServerMessage, maxMail), fault: make(chan error, 1),
		dialed: make(chan struct{}), adopted: make(chan struct{}), own: s.opt.Trust.Certificate(), notAfter: s.opt.Trust.Identity().NotAfter,
	}
}

// connect opens a connection and says Hello; token resumes or hands over the session.
func (s *Session) connect(ctx context.Context, token string) (*port, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	raw, err := s.opt.Dial(ctx, s.opt.Server)
	if err != nil {
		return nil, errs.New(errs.Unavailable, "the runtime at %s cannot be reached: %w", s.opt.Server, err)
	}
	p := newPort(s)
	opening := &link.Opening{Conn: raw}
	nc := tls.Client(opening, s.config())
	if err := nc.HandshakeContext(ctx); err != nil {
		_ = raw.Close() // the handshake says why
		if busy := opening.Busy(); busy != nil {
			return nil, busy.In("sdk", "connect to "+s.opt.Server)
		}
		return nil, handshakeError(s.opt.Server, err)
	}
	if peer, ok := s.opt.Trust.Peer(nc.ConnectionState()); ok && peer.NotAfter.Before(p.notAfter) {
		p.notAfter = peer.NotAfter
	}
	if cs := nc.ConnectionState(); cs.NegotiatedProtocol != link.ALPN {
		_ = nc.Close() // nothing was said on it
		return nil, errs.New(errs.FailedPrecondition, "%s does not speak %s; is it the gRPC address of a Telford runtime?", s.opt.Server, link.ALPN)
	}
	p.conn, err = link.Dial(ctx, nc, link.Options{
		Handler: gate{p, s.peer.Handler()}, Control: p.control, KeepRunning: true,
		MaxInbound: session.MaxPermits * 2, Clock: s.opt.Clock, Log: s.opt.Log,
	})
	if err != nil {
		return nil, err
	}
	close(p.dialed)
	if err := p.hello(ctx, token); err != nil {
		p.conn.Close(err)
		return nil, err
	}
	return p, nil
}

func (s *Session) config() *tls.Config {
	config := s.opt.Trust.ClientConfig(ident.Expect{Runtime: true}, link.ALPN)
	if s.opt.ServerName == "" {
		return config
	}
	config.ServerName = s.opt.ServerName
	verify := config.VerifyConnection
	config.VerifyConnection = func(cs tls.ConnectionState) error {
		if err := verify(cs); err != nil {
			return err
		}
		return cs.PeerCertificates[0].VerifyHostname(s.opt.ServerName)
	}
	return config
}

// handshakeError keeps what our own check has said about the runtime's certificate; any
// other failure may pass.
func handshakeError(server string, err error) error {
	if e := errs.From(err); e.Code == errs.Unauthenticated || e.Code == errs.PermissionDenied {
		return e.In("sdk", "connect to "+server)
	}
	return errs.New(errs.Unavailable, "the runtime at %s cannot be reached: %w", server, err)
}

// hello opens the session on the connection.
func (p *port) hello(ctx context.Context, token string) error {
	pos := p.s.peer.Position()
	p.say(&telfordv1.ClientMessage{Message: &telfordv1.ClientMessage_Hello{Hello: &telfordv1.Hello{ //nolint:contextcheck // control messages are not cancelled
		Instance: p.s.opt.Trust.Identity().Instance, Service: p.s.opt.Service, Sdk: p.s.opt.SDK, ResumeToken: token,
		ReceivedFloor: pos.Floor, ReceivedAbove: pos.Above, LastSent: pos.LastSent, MaxInFlight: uint32(p.s.opt.MaxInFlight),
	}}})
	ctx, cancel := context.WithTimeout(ctx, helloTimeout)
	defer cancel()
	for {
		select {
		case m := <-p.mail:
			if refused := p.opening(m); refused != nil {
				return refused
			}
			if p.ack != nil {
				return nil
			}
		case err := <-p.fault:
			return err
		case <-p.conn.Done():
			// What came before the end says more than the end.
			for {
				select {
				case m := <-p.mail:
					if refused := p.opening(m); refused != nil {
						return refused
					}
					continue
				default:
				}
				break
			}
			return p.conn.Err()
		case <-ctx.Done():
			return errs.New(errs.Unavailable, "the runtime at %s did not answer Hello within %s", p.s.opt.Server, helloTimeout)
		}
	}
}

func (p *port) opening(m *telfordv1.ServerMessage) error {
	switch v := m.GetMessage().(type) {
	case *telfordv1.ServerMessage_HelloAck:
		p.ack = v.HelloAck
		return nil
	case *telfordv1.ServerMessage_Fenced:
		return fenced(v.Fenced.GetReason())
	case *telfordv1.ServerMessage_Drain:
		return errs.New(errs.Unavailable, "the runtime is draining: %s", v.Drain.GetReason()).After(micros(v.Drain.GetReconnectAfterUs()))
	}
	return nil
}

// control takes in one control message, on the reader: it never waits.
func (p *port) control(payload []byte) {
	m := new(telfordv1.ServerMessage)
	if err := proto.Unmarshal(payload, m); err != nil {
		p.abort(errs.New(errs.InvalidArgument, "a control message of the runtime cannot be read: %w", err))
		return
	}
	switch v := m.GetMessage().(type) {
	case *telfordv1.ServerMessage_Ack:
		p.s.peer.OnAck(v.Ack)
		return
	case *telfordv1.ServerMessage_Cancel:
		p.s.peer.OnCancel(v.Cancel.GetSeq())
		return
	case *telfordv1.ServerMessage_Revocation:
		// At once, whatever else waits; what it closes ends on other goroutines.
		p.s.revoked(v.Revocation)
		return
	case *telfordv1.ServerMessage_HelloAck:
		p.epoch = v.HelloAck.GetRuntimeEpoch()
	case *telfordv1.ServerMessage_Rules:
		p.ruled(v.Rules)
	}
	select {
	case p.mail <- m:
	default:
		p.abort(errs.New(errs.ResourceExhausted, "%d control messages of the runtime wait to be handled", maxMail))
	}
}

// abort has the connection given up by whoever serves it; the reader must not wait.
func (p *port) abort(cause error) {
	select {
	case p.fault <- cause:
	default: // one fault is enough
	}
}

// say sends one message. A connection that fails is noticed where it is served.
func (p *port) say(m *telfordv1.ClientMessage) {
	if err := p.conn.Control(marshal(m)); err != nil {
		p.s.opt.Log.Debug("a message to the runtime was not sent", "error", err)
	}
}

func fenced(reason string) *errs.Error {
	return errs.New(errs.Terminal, "another process has this instance id now: %s", reason).In("sdk", "session")
}

// localAddr is this end of the connection.
func (p *port) localAddr() net.Addr { return p.conn.NetConn().LocalAddr() }

func micros(us int64) time.Duration { return time.Duration(us) * time.Microsecond }
