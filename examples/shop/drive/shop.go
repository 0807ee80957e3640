package drive

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"telford.dev/telford/examples/shop/inventory"
	"telford.dev/telford/examples/shop/notifications"
	"telford.dev/telford/examples/shop/orders"
	"telford.dev/telford/examples/shop/payments"
)

// shop is the runtime and the services, each a process.
type shop struct {
	dir     string
	runtime *process
	// grpc and http are the addresses of the runtime, key may be any service.
	grpc, http, key string
	// services in the order of their start; payments are the instances among them.
	services []*process
	payments []*process
}

// open starts everything.
func open(ctx context.Context, o Options, dir string) (*shop, error) {
	s := &shop{dir: dir}
	if err := s.start(ctx, o); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *shop) start(ctx context.Context, o Options) (err error) {
	data := s.data()
	s.runtime, err = spawn(ctx, s.dir, "runtime", nil, o.Telford, "serve", "--dev", "--data", data,
		"--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0", "--ipc", "off", "--bus", "off")
	if err != nil {
		return err
	}
	for field := range strings.FieldsSeq(s.runtime.ready) {
		name, addr, _ := strings.Cut(field, "=")
		switch name {
		case "grpc":
			s.grpc = addr
		case "http":
			s.http = "http://" + addr
		}
	}
	if s.grpc == "" || s.http == "" {
		return fmt.Errorf("the runtime said %q, without its addresses", s.runtime.ready)
	}
	key, err := os.ReadFile(filepath.Join(data, "dev.key"))
	if err != nil {
		return err
	}
	s.key = strings.TrimSpace(string(key))
	fmt.Fprintf(o.Out, "runtime        grpc %s, %s, SQLite in %s\n", s.grpc, s.http, data)
	stock := []string{}
	if o.StockPath != "" {
		stock = append(stock, "-stock", o.StockPath)
	}
	if _, err := s.service(ctx, o, inventory.Name, inventory.Name, stock...); err != nil {
		return err
	}
	if _, err := s.service(ctx, o, notifications.Name, notifications.Name); err != nil {
		return err
	}
	for i := range o.Payments {
		p, err := s.service(ctx, o, payments.Name, fmt.Sprintf("%s-%d", payments.Name, i+1), "-ledger", s.ledger(), "-bank", o.Bank.String())
		if err != nil {
			return err
		}
		s.payments = append(s.payments, p)
	}
	_, err = s.service(ctx, o, orders.Name, orders.Name)
	return err
}

// service starts one process of the shop.
func (s *shop) service(ctx context.Context, o Options, service, name string, args ...string) (*process, error) {
	p, err := spawn(ctx, s.dir, name, []string{"TELFORD_SERVER=" + s.grpc, "TELFORD_KEY=" + s.key}, o.Self, append([]string{service}, args...)...)
	if err != nil {
		return nil, err
	}
	s.services = append(s.services, p)
	fmt.Fprintf(o.Out, "%-14s pid %d, instance %s\n", name, p.cmd.Process.Pid, p.ready)
	return p, nil
}

func (s *shop) data() string   { return filepath.Join(s.dir, "telford") }
func (s *shop) ledger() string { return filepath.Join(s.dir, "ledger") }

// close stops what runs: those that call before those that are called, the runtime
// last.
func (s *shop) close() error {
	var errs []error
	for i := len(s.services) - 1; i >= 0; i-- {
		errs = append(errs, s.services[i].stop())
	}
	if s.runtime != nil {
		errs = append(errs, s.runtime.stop())
	}
	return errors.Join(errs...)
}
