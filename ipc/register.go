package ipc

import (
	"bytes"
	"encoding/json"
	"math"
	"time"

	"telford.dev/telford/internal/ipcwire"
)

// Registration is what a service says of itself when it comes.
type Registration struct {
	Name     string
	Methods  []string
	Version  string
	Metadata json.RawMessage // as JSON, whatever the service speaks
	Peer     Peer
}

// What a service may be called, and how many names one connection may hold.
const (
	maxName  = 255
	maxNames = 64
	maxPool  = 1024
)

// register takes a REGISTER.
func (c *conn) register() {
	e := &c.env
	if e.ServiceName.Kind != ipcwire.String || len(e.ServiceName.Text) == 0 || len(e.ServiceName.Text) > maxName {
		c.complain(e.ID, CodeInvalidMessage, `REGISTER needs a "serviceName" of 1 to 255 bytes`, ipcError)
		return
	}
	name := string(e.ServiceName.Text)
	reg := Registration{Name: name, Methods: e.Methods.Strings(), Version: string(e.Version.Text), Peer: c.peer}
	if e.Metadata.Kind == ipcwire.Object {
		text, err := asJSON(e.Metadata.Raw, e.Encoding)
		if err != nil {
			c.complain(e.ID, CodeInvalidMessage, err.Error(), ipcError)
			return
		}
		reg.Metadata = bytes.Clone(text)
	}
	if admit := c.g.cfg.Hooks.Admit; admit != nil {
		if err := admit(reg); err != nil {
			code, message := wireError(err)
			c.refuse(code, message)
			return
		}
	}
	index, size := poolPlace(e)
	for {
		fresh, ok, retry := c.g.join(c, reg, index, size, e.Updates.Present())
		if retry {
			continue
		}
		if !ok {
			c.refuse(CodeConnectionFailed, "Service '"+name+"' is already registered")
			return
		}
		_ = c.post(c, ipcwire.AppendRegisterAck(nil, c.encoding(), e.Updates.Present())) // a closed connection is on its way out
		if fresh != joined {
			c.g.registered(reg, fresh == updated)
		}
		return
	}
}

// poolPlace is which of how many connections this is. A size of zero is no pool.
func poolPlace(e *ipcwire.Envelope) (index, size int) {
	i, isNumber := e.PoolIndex.Float()
	n, also := e.PoolSize.Float()
	if !isNumber || !also || i != math.Trunc(i) || n != math.Trunc(n) || n < 1 || n > maxPool || i < 0 || i >= n {
		return 0, 0
	}
	return int(i), int(n)
}

// What became of a registration.
type admission uint8

const (
	created admission = iota
	joined            // a further connection of a pool
	updated           // the same connection, with other methods
)

// join gives the name to the connection, if it may have it. With retry the name was
// held by connections that had hung up, and it is to be asked again.
func (g *Gateway) join(c *conn, reg Registration, index, size int, updates bool) (a admission, ok, retry bool) {
	g.mu.Lock()
	s := g.services[reg.Name]
	if s != nil {
		var dead []*conn
		for _, old := range s.members() {
			if old != c && hungUp(old.nc) {
				dead = append(dead, old)
			}
		}
		if len(dead) > 0 {
			g.mu.Unlock()
			for _, old := range dead {
				g.leave(old)
			}
			return 0, false, true
		}
	}
	defer g.mu.Unlock()
	if c.left || g.stopping {
		return 0, false, false
	}
	if s == nil {
		if len(c.services) >= maxNames {
			return 0, false, false
		}
		s = &service{
			name: reg.Name, connectedAt: g.cfg.clock.Now(), poolSize: size, peer: c.peer, info: reg,
			conns: []*conn{c}, index: map[*conn]int{c: index}, calls: make(map[callKey]flight),
		}
		g.services[reg.Name] = s
		c.services = append(c.services, s)
		return created, true, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if place, mine := s.index[c]; mine {
		if !updates || place != index || size != s.poolSize {
			return 0, false, false
		}
		s.info = reg
		return updated, true, false
	}
	if size == 0 || size != s.poolSize || s.peer.PID != c.peer.PID || s.peer.UID != c.peer.UID {
		return 0, false, false
	}
	for _, taken := range s.index {
		if taken == index {
			return 0, false, false
		}
	}
	s.conns = append(s.conns, c)
	s.index[c] = index
	c.services = append(c.services, s)
	return joined, true, false
}

// refuse answers a REGISTER that is not taken, and closes this half of the connection.
// The other half is closed by the peer, within two seconds.
func (c *conn) refuse(code Code, message string) {
	_ = c.send(ipcwire.AppendRefusal(nil, c.encoding(), string(code), message)) // a closed connection learns nothing more
	c.flushDirty()
	c.finish(time.Second)
	c.refused = true
	_ = c.nc.CloseWrite() // a closed connection is what is wanted
	_ = c.nc.SetReadDeadline(time.Now().Add(2 * time.Second))
	if c.g.logs() {
		c.g.log("registration refused", map[string]any{"code": code, "message": message})
	}
}

func (g *Gateway) registered(reg Registration, update bool) {
	if g.logs() {
		g.log("service registered", map[string]any{"service": reg.Name, "methods": reg.Methods})
	}
	if g.cfg.Events.ServiceRegistered != nil {
		g.cfg.Events.ServiceRegistered(ServiceRegisteredEvent{
			ServiceName: reg.Name, Methods: reg.Methods, Version: reg.Version, Metadata: reg.Metadata, Peer: reg.Peer, Update: update,
		})
	}
}
