package drive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"telford.dev/telford"
	"telford.dev/telford/examples/shop/book"
	"telford.dev/telford/examples/shop/inventory"
	"telford.dev/telford/examples/shop/notifications"
	"telford.dev/telford/examples/shop/payments"
	shopv1 "telford.dev/telford/examples/shop/v1"
)

// report asks every service what it knows and says whether it fits together.
func (d *driver) report(ctx context.Context) error {
	known, err := d.known(ctx)
	if err != nil {
		return err
	}
	receipts, err := d.receipts()
	if err != nil {
		return err
	}
	levels, err := d.levels(ctx)
	if err != nil {
		return err
	}
	var wrong []error
	wrong = append(wrong, checkOrders(d.Orders, known, receipts)...)
	wrong = append(wrong, checkStock(d.Articles, known, levels)...)
	if err := d.allTold(ctx); err != nil {
		wrong = append(wrong, err)
	}
	d.summary(known, len(wrong))
	return errors.Join(wrong...)
}

// known is every order that the service knows, by id.
func (d *driver) known(ctx context.Context) (map[string]*shopv1.Order, error) {
	stream, err := d.orders.List(ctx, &shopv1.ListRequest{})
	if err != nil {
		return nil, fmt.Errorf("listing the orders: %w", err)
	}
	known := map[string]*shopv1.Order{}
	for {
		order, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return known, nil
		}
		if err != nil {
			return nil, fmt.Errorf("listing the orders: %w", err)
		}
		known[order.GetId()] = order
	}
}

func (d *driver) receipts() (map[string]payments.Receipt, error) {
	ledger, err := payments.OpenLedger(d.shop.ledger())
	if err != nil {
		return nil, err
	}
	all, err := ledger.All()
	if err != nil {
		return nil, err
	}
	receipts := map[string]payments.Receipt{}
	for _, r := range all {
		receipts[r.Order] = r
	}
	return receipts, nil
}

func (d *driver) levels(ctx context.Context) (map[string]*shopv1.StockLevel, error) {
	stream, err := shopv1.NewInventoryClient(d.front.Conn(inventory.Name)).Stock(ctx, &shopv1.StockRequest{})
	if err != nil {
		return nil, fmt.Errorf("taking stock: %w", err)
	}
	levels := map[string]*shopv1.StockLevel{}
	for {
		level, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return levels, nil
		}
		if err != nil {
			return nil, fmt.Errorf("taking stock: %w", err)
		}
		levels[level.GetSku()] = level
	}
}

// checkOrders compares what was placed with what the service knows and what the ledger
// holds.
func checkOrders(placed []book.Order, known map[string]*shopv1.Order, receipts map[string]payments.Receipt) []error {
	var wrong []error
	confirmed := 0
	for _, p := range placed {
		o := known[p.ID]
		r, charged := receipts[p.ID]
		switch {
		case o == nil:
			wrong = append(wrong, fmt.Errorf("order %s is lost", p.ID))
		case o.GetState() == shopv1.OrderState_ORDER_STATE_CONFIRMED:
			confirmed++
			if want := int64(p.Quantity) * p.UnitPriceCents; !charged || r.AmountCents != want {
				wrong = append(wrong, fmt.Errorf("order %s is confirmed for %s, its receipt says %s", p.ID, book.Cents(want), book.Cents(r.AmountCents)))
			}
		case charged:
			wrong = append(wrong, fmt.Errorf("order %s was refused, but charged", p.ID))
		}
	}
	if len(receipts) != confirmed && len(wrong) == 0 {
		wrong = append(wrong, fmt.Errorf("%d receipts for %d confirmed orders", len(receipts), confirmed))
	}
	return wrong
}

// checkStock compares what left the shelves with what was confirmed.
func checkStock(articles []book.Article, known map[string]*shopv1.Order, levels map[string]*shopv1.StockLevel) []error {
	sold := map[string]int32{}
	for _, o := range known {
		if o.GetState() == shopv1.OrderState_ORDER_STATE_CONFIRMED {
			sold[o.GetSku()] += o.GetQuantity()
		}
	}
	var wrong []error
	for _, a := range articles {
		l := levels[a.SKU]
		if l.GetLeft()+l.GetReserved() != a.Pieces || l.GetReserved() != sold[a.SKU] {
			wrong = append(wrong, fmt.Errorf("%s: %d pieces at first, %d left, %d held, %d sold", a.SKU, a.Pieces, l.GetLeft(), l.GetReserved(), sold[a.SKU]))
		}
	}
	return wrong
}

// allTold reads the stream of notices from its beginning until there is one for every
// order, and leaves it.
func (d *driver) allTold(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	told := 0
	for _, err := range telford.Stream[notifications.Notice](ctx, d.front, notifications.Name, notifications.MethodFollow, &notifications.Follow{}) {
		if err != nil {
			return fmt.Errorf("%d notices for %d orders: %w", told, len(d.Orders), err)
		}
		if told++; told == len(d.Orders) {
			break
		}
	}
	return nil
}

func (d *driver) summary(known map[string]*shopv1.Order, wrong int) {
	var revenue int64
	var again int
	by := map[string]int{}
	reasons := map[string]int{}
	for _, o := range known {
		switch o.GetState() {
		case shopv1.OrderState_ORDER_STATE_CONFIRMED:
			revenue += o.GetTotalCents()
			by[o.GetChargedBy()]++
		default:
			kind := "out of stock"
			if strings.HasPrefix(o.GetReason(), "the bank") {
				kind = "declined by the bank"
			}
			reasons[kind]++
		}
		if o.GetPaymentAttempts() > 1 {
			again++
		}
	}
	fmt.Fprintln(d.Out)
	fmt.Fprintf(d.Out, "placed         %d orders in %s, %.0f a second; p50 %s, p99 %s\n", len(d.Orders), d.elapsed.Round(10*time.Millisecond),
		float64(len(d.Orders))/d.elapsed.Seconds(), d.quantile(0.5), d.quantile(0.99))
	fmt.Fprintf(d.Out, "               every %dth through the runtime, the others directly\n", throughRuntime)
	if d.LeftOut > 0 {
		fmt.Fprintf(d.Out, "left out       %d lines that are no orders\n", d.LeftOut)
	}
	fmt.Fprintf(d.Out, "confirmed      %d, worth %s\n", d.confirmed.Load(), book.Cents(revenue))
	for _, kind := range slices.Sorted(maps.Keys(reasons)) {
		fmt.Fprintf(d.Out, "refused        %d, %s\n", reasons[kind], kind)
	}
	for _, p := range d.shop.payments {
		note := ""
		if p == d.killed {
			note = ", then killed"
		}
		fmt.Fprintf(d.Out, "charged        %d by %s%s\n", by[p.ready], p.name, note)
	}
	fmt.Fprintf(d.Out, "asked again    %d charges that the killed process left unanswered, %d orders\n", again, d.repeated.Load())
	if wrong == 0 {
		fmt.Fprintf(d.Out, "lost           0 of %d orders; each was charged once or not at all\n", len(d.Orders))
	} else {
		fmt.Fprintf(d.Out, "WRONG          %d things do not fit together\n", wrong)
	}
}

func (d *driver) quantile(q float64) time.Duration {
	if len(d.took) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(d.took))
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)].Round(time.Millisecond)
}
