// Package orders is the service that sees an order through: it holds the stock, takes
// the money and tells the customer, and gives back what it took where a later step
// refuses. It serves generated stubs, calls inventory by generated stubs and the other
// two by Go structs. It keeps its orders in memory and starts no goroutines.
package orders

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"

	"telford.dev/telford"
	"telford.dev/telford/examples/shop/book"
	"telford.dev/telford/examples/shop/inventory"
	"telford.dev/telford/examples/shop/notifications"
	"telford.dev/telford/examples/shop/payments"
	shopv1 "telford.dev/telford/examples/shop/v1"
)

// Name is the name of the service.
const Name = "orders"

// Declares are the options by which the service says whom it calls.
func Declares() []telford.Option {
	return []telford.Option{
		telford.Uses(inventory.Name),
		telford.Uses(payments.Name, payments.MethodCharge),
		telford.Uses(notifications.Name, notifications.MethodNotify),
	}
}

// Server implements shop.v1.Orders.
type Server struct {
	shopv1.UnimplementedOrdersServer
	svc       *telford.Service
	inventory shopv1.InventoryClient
	book      *register
}

// New takes orders in the name of a service.
func New(svc *telford.Service) *Server {
	return &Server{svc: svc, inventory: shopv1.NewInventoryClient(svc.Conn(inventory.Name)), book: newRegister()}
}

// Place sees one order through.
func (s *Server) Place(ctx context.Context, in *shopv1.PlaceRequest) (*shopv1.Order, error) {
	switch {
	case in.GetId() == "":
		return nil, telford.Errorf(telford.CodeInvalidArgument, "the order has no id")
	case in.GetQuantity() < 1 || in.GetUnitPriceCents() < 1:
		return nil, telford.Errorf(telford.CodeInvalidArgument, "order %s: quantity %d and unit_price_cents %d have to be positive",
			in.GetId(), in.GetQuantity(), in.GetUnitPriceCents())
	}
	return s.book.once(ctx, in.GetId(), func() (*shopv1.Order, error) { return s.place(ctx, in) })
}

func (s *Server) place(ctx context.Context, in *shopv1.PlaceRequest) (*shopv1.Order, error) {
	order := &shopv1.Order{
		Id: in.GetId(), Customer: in.GetCustomer(), Sku: in.GetSku(), Quantity: in.GetQuantity(),
		TotalCents: int64(in.GetQuantity()) * in.GetUnitPriceCents(),
	}
	_, err := s.inventory.Reserve(ctx, &shopv1.ReserveRequest{OrderId: order.GetId(), Sku: order.GetSku(), Quantity: order.GetQuantity()})
	switch {
	case errors.Is(err, telford.ErrFailedPrecondition), errors.Is(err, telford.ErrNotFound):
		return s.refuse(ctx, order, err)
	case err != nil:
		return nil, fmt.Errorf("reserving stock for order %s: %w", order.GetId(), err)
	}
	receipt, err := s.charge(ctx, order)
	switch {
	case errors.Is(err, telford.ErrFailedPrecondition):
		if _, rerr := s.inventory.Release(ctx, &shopv1.ReleaseRequest{OrderId: order.GetId()}); rerr != nil {
			return nil, fmt.Errorf("giving back the stock of order %s: %w", order.GetId(), rerr)
		}
		return s.refuse(ctx, order, err)
	case err != nil:
		return nil, fmt.Errorf("charging order %s: %w", order.GetId(), err)
	}
	order.State, order.Receipt, order.ChargedBy = shopv1.OrderState_ORDER_STATE_CONFIRMED, receipt.Number, receipt.ChargedBy
	return order, s.notify(ctx, order, "Thank you. Your order is on its way; you paid "+book.Cents(order.GetTotalCents())+".")
}

// charge takes the money. A call that broke off may have charged or not: payments
// charges an order once however often it is asked, so it is asked until it answers.
func (s *Server) charge(ctx context.Context, order *shopv1.Order) (*payments.Receipt, error) {
	const attempts = 8
	wait := 20 * time.Millisecond
	for {
		order.PaymentAttempts++
		receipt, err := telford.Call[payments.Receipt](ctx, s.svc, payments.Name, payments.MethodCharge, &payments.Charge{
			Order: order.GetId(), Customer: order.GetCustomer(), AmountCents: order.GetTotalCents(),
		})
		if err == nil || !errors.Is(err, telford.ErrUnavailable) && !errors.Is(err, telford.ErrNoInstance) {
			return receipt, err
		}
		if order.GetPaymentAttempts() == attempts {
			return nil, fmt.Errorf("after %d attempts: %w", attempts, err)
		}
		pause := time.NewTimer(wait)
		select {
		case <-pause.C:
			wait *= 2
		case <-ctx.Done():
			pause.Stop()
			return nil, errors.Join(err, ctx.Err())
		}
	}
}

func (s *Server) refuse(ctx context.Context, order *shopv1.Order, why error) (*shopv1.Order, error) {
	order.State, order.Reason = shopv1.OrderState_ORDER_STATE_REFUSED, reason(why)
	return order, s.notify(ctx, order, "We are sorry: "+order.GetReason()+".")
}

func (s *Server) notify(ctx context.Context, order *shopv1.Order, text string) error {
	_, err := telford.Call[notifications.Sent](ctx, s.svc, notifications.Name, notifications.MethodNotify, &notifications.Notice{
		Order: order.GetId(), Customer: order.GetCustomer(), Text: text,
	})
	if err != nil {
		return fmt.Errorf("telling the customer of order %s: %w", order.GetId(), err)
	}
	return nil
}

// reason is what the other service said, without what was said around it.
func reason(err error) string {
	var e *telford.Error
	if errors.As(err, &e) {
		return e.Message
	}
	return err.Error()
}

// Get returns an order.
func (s *Server) Get(_ context.Context, in *shopv1.GetRequest) (*shopv1.Order, error) {
	if o := s.book.get(in.GetId()); o != nil {
		return o, nil
	}
	return nil, telford.Errorf(telford.CodeNotFound, "there is no order %q", in.GetId())
}

// List sends every order, oldest first.
func (s *Server) List(_ *shopv1.ListRequest, out grpc.ServerStreamingServer[shopv1.Order]) error {
	for _, o := range s.book.all() {
		if err := out.Send(o); err != nil {
			return err
		}
	}
	return nil
}
