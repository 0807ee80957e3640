// Package drive runs the shop for everybody to see: it starts the runtime and the
// services as processes, places orders, kills one of the processes in the middle, and
// counts whether anything was lost. It owns the processes and ends them, and its own
// goroutines end before Run returns.
package drive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"telford.dev/telford"
	"telford.dev/telford/examples/shop/book"
	"telford.dev/telford/examples/shop/notifications"
	"telford.dev/telford/examples/shop/orders"
	shopv1 "telford.dev/telford/examples/shop/v1"
)

// Options say what to drive.
type Options struct {
	// Telford and Self are the programs: the runtime, and this one.
	Telford, Self string
	Orders        []book.Order
	// LeftOut is how many lines of the order file were no orders.
	LeftOut   int
	Articles  []book.Article
	StockPath string
	Payments  int
	Workers   int
	Bank      time.Duration
	// Stay keeps everything running until ctx ends.
	Stay bool
	Out  io.Writer
}

// Run opens the shop, places every order, counts, and closes it. It returns an error if
// an order was lost or charged otherwise than once.
func Run(ctx context.Context, o Options) (err error) {
	dir, err := os.MkdirTemp("", "telford-shop-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	s, err := open(ctx, o, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	front, err := enter(ctx, s)
	if err != nil {
		return err
	}
	defer func() {
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
		defer cancel()
		err = errors.Join(err, front.Stop(stop))
	}()
	d := &driver{Options: o, shop: s, front: front, orders: shopv1.NewOrdersClient(front.Conn(orders.Name))}
	if err := d.drive(ctx); err != nil {
		return err
	}
	if err := d.report(ctx); err != nil {
		return err
	}
	if err := d.look(ctx); err != nil {
		return err
	}
	d.next()
	if o.Stay {
		<-ctx.Done()
	}
	return nil
}

// enter joins the shop as one who only calls.
func enter(ctx context.Context, s *shop) (*telford.Service, error) {
	front, err := telford.New("storefront", telford.WithServer(s.grpc), telford.WithKey(s.key), telford.CallerOnly(),
		telford.Uses(orders.Name), telford.Uses(notifications.Name))
	if err != nil {
		return nil, err
	}
	if err := front.Start(ctx); err != nil {
		return nil, err
	}
	if err := front.WaitReady(ctx, orders.Name, notifications.Name); err != nil {
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
		defer cancel()
		return nil, errors.Join(err, front.Stop(stop))
	}
	return front, nil
}

// throughRuntime says that every so manyth order goes through the runtime although it
// could go directly.
const throughRuntime = 4

// job is one order and the way that it goes.
type job struct {
	order book.Order
	by    telford.TransportMode
}

// driver places the orders.
type driver struct {
	Options
	shop   *shop
	front  *telford.Service
	orders shopv1.OrdersClient

	done, confirmed, refused, notices atomic.Int64
	repeated                          atomic.Int64 // placed again, because no answer came
	killed                            *process
	elapsed                           time.Duration
	mu                                sync.Mutex
	took                              []time.Duration
}

// drive places every order and kills an instance of payments after a third of them.
func (d *driver) drive(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel(nil)
	wg.Go(func() { d.follow(ctx) })
	stopProgress := d.progress()
	defer stopProgress()

	queue := make(chan job)
	var workers sync.WaitGroup
	started := time.Now()
	for range d.Workers {
		workers.Go(func() {
			for j := range queue {
				if err := d.place(ctx, j.order, j.by); err != nil {
					cancel(fmt.Errorf("order %s: %w", j.order.ID, err))
				}
			}
		})
	}
	for i, order := range d.Orders {
		if i == len(d.Orders)/3 {
			d.kill()
		}
		by := telford.Auto
		if i%throughRuntime == 0 {
			by = telford.Proxy
		}
		select {
		case queue <- job{order, by}:
		case <-ctx.Done():
		}
	}
	close(queue)
	workers.Wait()
	d.elapsed = time.Since(started)
	return context.Cause(ctx)
}

// place sees that one order is answered. One that got no answer is placed again: orders
// takes it once, whatever was heard.
func (d *driver) place(ctx context.Context, order book.Order, by telford.TransportMode) error {
	const attempts = 10
	started := time.Now()
	for attempt := 1; ; attempt++ {
		got, err := d.orders.Place(ctx, &shopv1.PlaceRequest{
			Id: order.ID, Customer: order.Customer, Sku: order.SKU, Quantity: order.Quantity, UnitPriceCents: order.UnitPriceCents,
		}, telford.Transport(by))
		switch {
		case err == nil:
			if got.GetState() == shopv1.OrderState_ORDER_STATE_CONFIRMED {
				d.confirmed.Add(1)
			} else {
				d.refused.Add(1)
			}
			d.mu.Lock()
			d.took = append(d.took, time.Since(started))
			d.mu.Unlock()
			d.done.Add(1)
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case attempt == attempts || errors.Is(err, telford.ErrInvalidArgument):
			return err
		}
		d.repeated.Add(1)
	}
}

// kill ends one instance of payments as a crash would: no drain, no goodbye.
func (d *driver) kill() {
	d.killed = d.shop.payments[1]
	pid := d.killed.cmd.Process.Pid
	d.killed.kill()
	d.say("killed         %s with kill -9 (pid %d), in the middle of its work", d.killed.name, pid)
}

// follow counts the notices as they are sent, over one stream.
func (d *driver) follow(ctx context.Context) {
	for ctx.Err() == nil {
		in := &notifications.Follow{Skip: int(d.notices.Load())}
		for _, err := range telford.Stream[notifications.Notice](ctx, d.front, notifications.Name, notifications.MethodFollow, in) {
			if err != nil {
				break
			}
			d.notices.Add(1)
		}
	}
}
