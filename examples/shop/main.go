// Command shop is the example of a whole: a shop whose orders, payments, inventory and
// notifications are services of their own, and the demo that runs them. Each service
// owns what it starts and ends at SIGTERM, after draining.
package main

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"telford.dev/telford"
	"telford.dev/telford/examples/shop/book"
	"telford.dev/telford/examples/shop/drive"
	"telford.dev/telford/examples/shop/inventory"
	"telford.dev/telford/examples/shop/notifications"
	"telford.dev/telford/examples/shop/orders"
	"telford.dev/telford/examples/shop/payments"
	shopv1 "telford.dev/telford/examples/shop/v1"
)

//go:embed orders.csv
var orderFile []byte

//go:embed stock.csv
var stockFile []byte

const usage = `shop is a shop of four services.

  shop demo            run everything once, and see what happens when a process is killed
  shop orders          the services one by one; they read TELFORD_SERVER and TELFORD_KEY
  shop payments
  shop inventory
  shop notifications

-help after any of them lists its flags.
`

// errUsage says that the command line was wrong; its message has been printed.
var errUsage = errors.New("wrong usage")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	switch err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); {
	case err == nil, errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errUsage):
		os.Exit(2)
	default:
		fmt.Fprintln(os.Stderr, "shop:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) == 0 {
		fmt.Fprint(stderr, usage)
		return errUsage
	}
	f := flag.NewFlagSet("shop "+args[0], flag.ContinueOnError)
	f.SetOutput(stderr)
	switch args[0] {
	case "demo":
		return demo(ctx, f, args[1:], stdout)
	case orders.Name:
		if err := parse(f, args[1:]); err != nil {
			return err
		}
		return serve(ctx, stdout, orders.Name, orders.Declares(), func(svc *telford.Service) error {
			shopv1.RegisterOrdersServer(svc, orders.New(svc))
			return nil
		})
	case inventory.Name:
		stock := f.String("stock", "", "stock list to open with (default: the one of the repository)")
		if err := parse(f, args[1:]); err != nil {
			return err
		}
		articles, err := readStock(*stock)
		if err != nil {
			return err
		}
		return serve(ctx, stdout, inventory.Name, nil, func(svc *telford.Service) error {
			shopv1.RegisterInventoryServer(svc, inventory.New(articles))
			return nil
		})
	case payments.Name:
		dir := f.String("ledger", "", "directory of receipts, shared by all instances (required)")
		bank := f.Duration("bank", 60*time.Millisecond, "how long the bank takes")
		if err := parse(f, args[1:]); err != nil {
			return err
		}
		if *dir == "" {
			fmt.Fprintln(stderr, "shop payments: -ledger DIR is required: instances must share their receipts")
			return errUsage
		}
		ledger, err := payments.OpenLedger(*dir)
		if err != nil {
			return err
		}
		return serve(ctx, stdout, payments.Name, nil, func(svc *telford.Service) error {
			return payments.New(ledger, func() string { return svc.Identity().Instance }, *bank).Register(svc)
		})
	case notifications.Name:
		if err := parse(f, args[1:]); err != nil {
			return err
		}
		return serve(ctx, stdout, notifications.Name, nil, notifications.New().Register)
	case "help", "-h", "-help", "--help":
		fmt.Fprint(stdout, usage)
		return nil
	}
	fmt.Fprintf(stderr, "shop: there is no %q\n\n%s", args[0], usage)
	return errUsage
}

// parse takes flags only.
func parse(f *flag.FlagSet, args []string) error {
	if err := f.Parse(args); errors.Is(err, flag.ErrHelp) {
		return err
	} else if err != nil {
		return errUsage
	}
	if f.NArg() > 0 {
		fmt.Fprintf(f.Output(), "%s: unexpected argument %q\n", f.Name(), f.Arg(0))
		return errUsage
	}
	return nil
}

// serve runs one service until ctx ends. It prints its instance when it is ready.
func serve(ctx context.Context, w io.Writer, name string, opts []telford.Option, register func(*telford.Service) error) error {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	svc, err := telford.New(name, append([]telford.Option{telford.FromEnv(), telford.Logger(log)}, opts...)...)
	if err != nil {
		return err
	}
	if err := register(svc); err != nil {
		return err
	}
	if err := svc.Start(ctx); err != nil {
		return err
	}
	fmt.Fprintln(w, drive.ReadyWord, svc.Identity().Instance)
	<-ctx.Done()
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	return svc.Stop(drain)
}

// demo reads what to sell and to whom, and drives the shop.
func demo(ctx context.Context, f *flag.FlagSet, args []string, w io.Writer) error {
	o := drive.Options{Out: w}
	f.StringVar(&o.Telford, "telford", "telford", "the telford program")
	f.IntVar(&o.Payments, "payments", 3, "instances of payments; one is killed")
	f.IntVar(&o.Workers, "workers", 8, "orders placed at once")
	f.BoolVar(&o.Stay, "stay", false, "keep everything running afterwards, until interrupted")
	f.DurationVar(&o.Bank, "bank", 60*time.Millisecond, "how long the bank takes for a charge")
	orderPath := f.String("orders", "", "order file: id, customer, sku, quantity, unit price (default: the one of the repository)")
	f.StringVar(&o.StockPath, "stock", "", "stock list: sku, name, pieces (default: the one of the repository)")
	if err := parse(f, args); err != nil {
		return err
	}
	if o.Payments < 2 || o.Workers < 1 {
		fmt.Fprintln(f.Output(), "shop demo: -payments has to be 2 at least, since one is killed, and -workers 1")
		return errUsage
	}
	list, bad, err := readOrders(*orderPath)
	if err != nil {
		return fmt.Errorf("reading the orders: %w", err)
	}
	for _, b := range bad {
		fmt.Fprintf(w, "left out: %v\n", b)
	}
	if len(list) == 0 {
		return fmt.Errorf("%s holds no order that can be placed", *orderPath)
	}
	if o.Articles, err = readStock(o.StockPath); err != nil {
		return fmt.Errorf("reading the stock list: %w", err)
	}
	o.Orders, o.LeftOut = list, len(bad)
	if o.Self, err = os.Executable(); err != nil {
		return err
	}
	return drive.Run(ctx, o)
}

func readOrders(path string) ([]book.Order, []*book.LineError, error) {
	if path == "" {
		return book.ParseOrders(bytes.NewReader(orderFile), "orders.csv")
	}
	return book.ReadOrders(path)
}

func readStock(path string) ([]book.Article, error) {
	if path == "" {
		return book.ParseStock(bytes.NewReader(stockFile), "stock.csv")
	}
	return book.ReadStock(path)
}
