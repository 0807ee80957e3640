package drive

import (
	"errors"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"telford.dev/telford/examples/shop/book"
	"telford.dev/telford/examples/shop/payments"
	shopv1 "telford.dev/telford/examples/shop/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The demo is worth nothing if it cannot see a loss.
func TestWhatIsLostIsSeen(t *testing.T) {
	t.Parallel()
	placed := []book.Order{{ID: "A-1", SKU: "TEA", Quantity: 2, UnitPriceCents: 100}, {ID: "A-2", SKU: "TEA", Quantity: 1, UnitPriceCents: 100}}
	const confirmed, refused = shopv1.OrderState_ORDER_STATE_CONFIRMED, shopv1.OrderState_ORDER_STATE_REFUSED
	order := func(id string, state shopv1.OrderState, quantity int32) *shopv1.Order {
		return &shopv1.Order{Id: id, Sku: "TEA", Quantity: quantity, State: state}
	}
	for _, c := range []struct {
		name     string
		known    []*shopv1.Order
		receipts map[string]payments.Receipt
		left     int32
		held     int32
		want     string
	}{
		{"all is well", []*shopv1.Order{order("A-1", confirmed, 2), order("A-2", refused, 1)}, map[string]payments.Receipt{"A-1": {AmountCents: 200}}, 8, 2, ""},
		{"lost", []*shopv1.Order{order("A-1", confirmed, 2)}, map[string]payments.Receipt{"A-1": {AmountCents: 200}}, 8, 2, "order A-2 is lost"},
		{"not charged", []*shopv1.Order{order("A-1", confirmed, 2), order("A-2", refused, 1)}, nil, 8, 2, "order A-1 is confirmed for 2.00, its receipt says 0.00"},
		{"charged wrongly", []*shopv1.Order{order("A-1", confirmed, 2), order("A-2", refused, 1)}, map[string]payments.Receipt{"A-1": {AmountCents: 300}}, 8, 2, "its receipt says 3.00"},
		{"refused and charged", []*shopv1.Order{order("A-1", refused, 2), order("A-2", refused, 1)}, map[string]payments.Receipt{"A-1": {AmountCents: 200}}, 10, 0, "order A-1 was refused, but charged"},
		{"a charge of nobody", []*shopv1.Order{order("A-1", refused, 2), order("A-2", refused, 1)}, map[string]payments.Receipt{"A-9": {AmountCents: 200}}, 10, 0, "1 receipts for 0 confirmed orders"},
		{"stock kept", []*shopv1.Order{order("A-1", refused, 2), order("A-2", refused, 1)}, nil, 8, 2, "10 pieces at first, 8 left, 2 held, 0 sold"},
		{"stock gone", []*shopv1.Order{order("A-1", refused, 2), order("A-2", refused, 1)}, nil, 9, 0, "10 pieces at first, 9 left, 0 held, 0 sold"},
	} {
		known := map[string]*shopv1.Order{}
		for _, o := range c.known {
			known[o.GetId()] = o
		}
		levels := map[string]*shopv1.StockLevel{"TEA": {Sku: "TEA", Left: c.left, Reserved: c.held}}
		wrong := checkOrders(placed, known, c.receipts)
		wrong = append(wrong, checkStock([]book.Article{{SKU: "TEA", Pieces: 10}}, known, levels)...)
		got := ""
		if err := errors.Join(wrong...); err != nil {
			got = err.Error()
		}
		if c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestArgumentsAsTyped(t *testing.T) {
	t.Parallel()
	if got, want := quoted([]string{"call", "orders", `{"id": "A-1"}`}), `call orders '{"id": "A-1"}'`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
