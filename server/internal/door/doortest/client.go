package doortest

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	telfordv1 "telford.dev/telford/api/telford/v1"
	"telford.dev/telford/internal/ident"
	"telford.dev/telford/internal/link"
	"telford.dev/telford/internal/message"
	"telford.dev/telford/internal/session"
)

// Instance is one end of a session as a process of a service has it.
type Instance struct {
	Peer  *session.Peer
	Trust *ident.Trust
	Token string

	addr string
}

// Wire is one connection of an Instance.
type Wire struct {
	*link.Conn
	Ack *telfordv1.HelloAck

	t        testing.TB
	first    *telfordv1.Revocation
	messages chan *telfordv1.ServerMessage
}

// NewInstance returns an instance that has not connected.
func NewInstance(addr string, trust *ident.Trust, handler message.Handler) *Instance {
	return &Instance{Peer: session.NewPeer(session.PeerOptions{Handler: handler, Client: true}), Trust: trust, addr: addr}
}

// Connect opens a link and says Hello with the token that the instance has. change, if
// not nil, changes the Hello.
func (i *Instance) Connect(t testing.TB, change func(*telfordv1.Hello)) *Wire {
	t.Helper()
	return i.connect(t, Dial(t, i.addr, i.Trust, link.ALPN), change)
}

// Over is Connect over a connection that the test has made itself.
func (i *Instance) Over(t testing.TB, nc net.Conn) *Wire {
	t.Helper()
	return i.connect(t, nc, nil)
}

func (i *Instance) connect(t testing.TB, nc net.Conn, change func(*telfordv1.Hello)) *Wire {
	t.Helper()
	w := &Wire{t: t, messages: make(chan *telfordv1.ServerMessage, 1024)}
	var once sync.Once
	var err error
	w.Conn, err = link.Dial(context.Background(), nc, link.Options{
		Handler: i.Peer.Handler(), KeepRunning: true,
		Control: func(b []byte) {
			m := new(telfordv1.ServerMessage)
			if err := proto.Unmarshal(b, m); err != nil {
				once.Do(func() { t.Errorf("control message: %v", err) })
				return
			}
			switch v := m.GetMessage().(type) {
			case *telfordv1.ServerMessage_Ack:
				i.Peer.OnAck(v.Ack)
			case *telfordv1.ServerMessage_Cancel:
				i.Peer.OnCancel(v.Cancel.GetSeq())
			}
			select {
			case w.messages <- m:
			default:
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close(nil) })
	at := i.Peer.Position()
	hello := &telfordv1.Hello{
		ResumeToken: i.Token, ReceivedFloor: at.Floor, ReceivedAbove: at.Above, LastSent: at.LastSent,
	}
	if change != nil {
		change(hello)
	}
	w.Send(&telfordv1.ClientMessage{Message: &telfordv1.ClientMessage_Hello{Hello: hello}})
	ack := Next[*telfordv1.ServerMessage_HelloAck](w)
	if ack == nil {
		return w // fenced, or closed
	}
	w.Ack = ack.HelloAck
	i.Token = w.Ack.GetResumeToken()
	theirs := session.Position{Floor: w.Ack.GetReceivedFloor(), Above: w.Ack.GetReceivedAbove(), LastSent: w.Ack.GetLastSent()}
	i.Peer.Attach(w.Conn, theirs, w.Ack.GetResumed())
	if first := Next[*telfordv1.ServerMessage_Revocation](w); first != nil {
		w.first = first.Revocation
	}
	return w
}

// Send sends a control message.
func (w *Wire) Send(m *telfordv1.ClientMessage) {
	w.t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		w.t.Fatal(err)
	}
	_ = w.Control(b) // a connection that has ended shows elsewhere
}

// Register declares methods and waits for the answer.
func (w *Wire) Register(d *telfordv1.Declaration) *telfordv1.Registered {
	w.t.Helper()
	w.Send(&telfordv1.ClientMessage{Message: &telfordv1.ClientMessage_Register{Register: d}})
	r := Next[*telfordv1.ServerMessage_Registered](w)
	if r == nil {
		w.t.Fatalf("the connection ended before the registration was answered: %v", w.Err())
	}
	return r.Registered
}

// Next returns the next control message of a kind, skipping others; nil when the
// connection has ended.
func Next[T any](w *Wire) T {
	w.t.Helper()
	limit := time.NewTimer(10 * time.Second)
	defer limit.Stop()
	var none T
	for {
		var m *telfordv1.ServerMessage
		select {
		case m = <-w.messages:
		default:
			select {
			case m = <-w.messages:
			case <-w.Done():
				select {
				case m = <-w.messages: // it came just before the end
				default:
					return none
				}
			case <-limit.C:
				w.t.Fatalf("no %T came in time", none)
			}
		}
		if v, ok := m.GetMessage().(T); ok {
			return v
		}
	}
}

// Declaration declares a service with unary JSON methods.
func Declaration(service string, methods ...string) *telfordv1.Declaration {
	d := &telfordv1.Declaration{Service: service, Status: telfordv1.InstanceStatus_INSTANCE_STATUS_OK}
	for _, m := range methods {
		d.Methods = append(d.Methods, &telfordv1.Method{
			Name: m, Kind: telfordv1.MethodKind_METHOD_KIND_UNARY, ContentTypes: []string{"json"},
		})
	}
	return d
}

// Snapshot returns the revocations that followed HelloAck.
func (w *Wire) Snapshot(t testing.TB) *telfordv1.Revocation {
	t.Helper()
	if w.first == nil {
		t.Fatal("no revocation came between HelloAck and the answer to the registration")
	}
	return w.first
}
