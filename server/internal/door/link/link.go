// Package linkdoor owns the door of telford/1: it turns an accepted connection into a
// link and gives it to the sessions, and it serves what instances ask of the runtime
// itself over their links. It knows no TLS and keeps nothing.
//
// It starts no goroutines: Serve runs on that of the accept loop, calls on those of the
// link.
package linkdoor

import (
	"log/slog"
	"net"

	"telford.dev/telford/internal/clock"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/link"
	"telford.dev/telford/server/internal/door/accept"
	"telford.dev/telford/server/internal/door/sessions"
)

// maxInbound is how many calls of one instance run here at once; those beyond are
// refused unbegun. It is what has gathered at a busy instance when its session returns
// after a restart of the runtime.
const maxInbound = 4096

// Config is what a Door is made of.
type Config struct {
	Sessions  *sessions.Server
	Router    Router
	Authority Authority
	Clock     clock.Clock
	Log       *slog.Logger
}

// Door serves telford/1 connections.
type Door struct {
	cfg Config
}

// New returns a Door, and makes what it serves itself known to the router.
func New(cfg Config) *Door {
	if cfg.Clock == nil {
		cfg.Clock = clock.Real()
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	d := &Door{cfg: cfg}
	cfg.Router.HandleLocal(builtIn, renewMethod, d.renew)
	return d
}

// Serve carries one connection until it ends: it is the Link function of the accept
// loop.
func (d *Door) Serve(nc net.Conn, peer accept.Peer) {
	refusal := peer.Rejected
	if refusal == nil {
		refusal = d.cfg.Sessions.Admit()
	}
	if refusal == nil && !peer.Known {
		refusal = errs.New(errs.Unauthenticated, "telford/1 needs a client certificate").Unstarted()
	}
	if refusal != nil {
		d.cfg.Log.Warn("connection refused", "peer", peer.Addr, "error", refusal)
		if err := link.Refuse(nc, refusal); err != nil {
			d.cfg.Log.Debug("the refusal was not heard", "peer", peer.Addr, "error", err)
		}
		return
	}
	owner := sessions.Owner{Identity: peer.Identity, Door: "link"}
	if peer.Addr != nil {
		owner.Addr = peer.Addr.String()
	}
	port := d.cfg.Sessions.Port(owner)
	conn, err := link.Accept(nc, link.Options{
		Handler: port.Handler(), Control: port.Payload, KeepRunning: true, Clock: d.cfg.Clock, Log: d.cfg.Log,
		// None waits here: a command counts as taken only when its handler has it.
		MaxInbound: maxInbound, MaxWaiting: -1,
	})
	if err != nil {
		d.cfg.Log.Debug("accept a link", "peer", peer.Addr, "error", err)
		return
	}
	port.Serve(conn)
}
