package sqlite

import (
	"context"
	"errors"
	"fmt"

	"telford.dev/telford/server/internal/tx"
)

// readers is the pool of read-only connections. They share one lock around the page
// cache, so that more of them than cores gain nothing. They are opened when first
// needed.
type readers struct {
	path  string
	fast  bool
	slots chan *conn // a nil slot has no connection yet
}

func newReaders(path string, fast bool, n int) *readers {
	r := &readers{path: path, fast: fast, slots: make(chan *conn, n)}
	for range n {
		r.slots <- nil
	}
	return r
}

// take waits for a connection until ctx ends or the database is closing.
func (r *readers) take(ctx context.Context, closing <-chan struct{}) (*conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	select {
	case <-closing:
		return nil, tx.ErrClosed
	default:
	}
	var c *conn
	select {
	case c = <-r.slots:
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for one of %d readers: %w", cap(r.slots), ctx.Err())
	case <-closing:
		return nil, tx.ErrClosed
	}
	if c != nil {
		return c, nil
	}
	c, err := openConn(r.path, r.fast)
	if err == nil {
		_, err = c.pragma("query_only=ON")
	}
	if err != nil {
		if c != nil {
			_ = c.close()
		}
		r.slots <- nil
		return nil, err
	}
	return c, nil
}

// put gives a connection back; one that saw an I/O error is replaced.
func (r *readers) put(c *conn) {
	if c.spoiled {
		_ = c.close()
		c = nil
	}
	r.slots <- c
}

// close waits for every connection and closes it. take must not be called any more.
func (r *readers) close() error {
	var err error
	for range cap(r.slots) {
		if c := <-r.slots; c != nil {
			err = errors.Join(err, c.close())
		}
	}
	return err
}
