# SPDX-License-Identifier: GPL-2.0-only
"""Structures of the interrupt controllers, the 8254 and interrupt routing."""

from __future__ import annotations

from ctypes import Structure, Union, c_int32, c_int64, c_uint8, c_uint16, c_uint32, c_uint64

from .consts import KVM_IOAPIC_NUM_PINS

# fmt: off


class _kvm_irq_level_u(Union):
    _fields_ = (("irq", c_uint32), ("status", c_int32))


class kvm_tpr_access_ctl(Structure):
    """For KVM_TPR_ACCESS_REPORTING."""

    _fields_ = (("enabled", c_uint32), ("flags", c_uint32), ("reserved", c_uint32 * 8))


class kvm_vapic_addr(Structure):
    """For KVM_SET_VAPIC_ADDR."""

    _fields_ = (("vapic_addr", c_uint64),)


class kvm_irq_level(Structure):
    """For KVM_IRQ_LINE and KVM_IRQ_LINE_STATUS."""

    _anonymous_ = ("u",)
    _fields_ = (("u", _kvm_irq_level_u), ("level", c_uint32))


class kvm_pic_state(Structure):
    """One 8259 in struct kvm_irqchip."""

    _fields_ = (
        ("last_irr", c_uint8), ("irr", c_uint8), ("imr", c_uint8), ("isr", c_uint8),
        ("priority_add", c_uint8), ("irq_base", c_uint8), ("read_reg_select", c_uint8), ("poll", c_uint8),
        ("special_mask", c_uint8), ("init_state", c_uint8), ("auto_eoi", c_uint8),
        ("rotate_on_auto_eoi", c_uint8), ("special_fully_nested_mode", c_uint8), ("init4", c_uint8),
        ("elcr", c_uint8), ("elcr_mask", c_uint8),
    )


class _kvm_ioapic_fields(Structure):
    _fields_ = (
        ("vector", c_uint8), ("delivery_mode", c_uint8, 3), ("dest_mode", c_uint8, 1),
        ("delivery_status", c_uint8, 1), ("polarity", c_uint8, 1), ("remote_irr", c_uint8, 1),
        ("trig_mode", c_uint8, 1), ("mask", c_uint8, 1), ("reserve", c_uint8, 7), ("reserved", c_uint8 * 4),
        ("dest_id", c_uint8),
    )


class _kvm_ioapic_redirtbl(Union):
    _fields_ = (("bits", c_uint64), ("fields", _kvm_ioapic_fields))


class kvm_ioapic_state(Structure):
    """The IOAPIC in struct kvm_irqchip."""

    _fields_ = (
        ("base_address", c_uint64), ("ioregsel", c_uint32), ("id", c_uint32), ("irr", c_uint32),
        ("pad", c_uint32), ("redirtbl", _kvm_ioapic_redirtbl * KVM_IOAPIC_NUM_PINS),
    )


class _kvm_irqchip_chip(Union):
    _fields_ = (("dummy", c_uint8 * 512), ("pic", kvm_pic_state), ("ioapic", kvm_ioapic_state))


class kvm_irqchip(Structure):
    """For KVM_GET_IRQCHIP and KVM_SET_IRQCHIP."""

    _fields_ = (("chip_id", c_uint32), ("pad", c_uint32), ("chip", _kvm_irqchip_chip))


class kvm_pit_config(Structure):
    """For KVM_CREATE_PIT2."""

    _fields_ = (("flags", c_uint32), ("pad", c_uint32 * 15))


class kvm_pit_channel_state(Structure):
    """One channel of the 8254."""

    _fields_ = (
        ("count", c_uint32), ("latched_count", c_uint16), ("count_latched", c_uint8),
        ("status_latched", c_uint8), ("status", c_uint8), ("read_state", c_uint8), ("write_state", c_uint8),
        ("write_latch", c_uint8), ("rw_mode", c_uint8), ("mode", c_uint8), ("bcd", c_uint8),
        ("gate", c_uint8), ("count_load_time", c_int64),
    )


class kvm_pit_state2(Structure):
    """For KVM_GET_PIT2 and KVM_SET_PIT2."""

    _fields_ = (("channels", kvm_pit_channel_state * 3), ("flags", c_uint32), ("reserved", c_uint32 * 9))


class kvm_irq_routing_irqchip(Structure):
    """A GSI routed to a pin."""

    _fields_ = (("irqchip", c_uint32), ("pin", c_uint32))


class _kvm_irq_routing_msi_u(Union):
    _fields_ = (("pad", c_uint32), ("devid", c_uint32))


class kvm_irq_routing_msi(Structure):
    """A GSI routed to an MSI."""

    _anonymous_ = ("u",)
    _fields_ = (
        ("address_lo", c_uint32), ("address_hi", c_uint32), ("data", c_uint32),
        ("u", _kvm_irq_routing_msi_u),
    )


class kvm_irq_routing_hv_sint(Structure):
    """A GSI routed to a Hyper-V SINT."""

    _fields_ = (("vcpu", c_uint32), ("sint", c_uint32))


class kvm_irq_routing_xen_evtchn(Structure):
    """A GSI routed to a Xen event channel."""

    _fields_ = (("port", c_uint32), ("vcpu", c_uint32), ("priority", c_uint32))


class _kvm_irq_routing_entry_u(Union):
    _fields_ = (
        ("irqchip", kvm_irq_routing_irqchip), ("msi", kvm_irq_routing_msi),
        ("hv_sint", kvm_irq_routing_hv_sint), ("xen_evtchn", kvm_irq_routing_xen_evtchn),
        ("pad", c_uint32 * 8),
    )


class kvm_irq_routing_entry(Structure):
    """One GSI in struct kvm_irq_routing."""

    _fields_ = (
        ("gsi", c_uint32), ("type", c_uint32), ("flags", c_uint32), ("pad", c_uint32),
        ("u", _kvm_irq_routing_entry_u),
    )


class kvm_irq_routing(Structure):
    """For KVM_SET_GSI_ROUTING."""

    _fields_ = (("nr", c_uint32), ("flags", c_uint32), ("entries", kvm_irq_routing_entry * 0))


class kvm_irqfd(Structure):
    """For KVM_IRQFD."""

    _fields_ = (
        ("fd", c_uint32), ("gsi", c_uint32), ("flags", c_uint32), ("resamplefd", c_uint32),
        ("pad", c_uint8 * 16),
    )


class kvm_msi(Structure):
    """For KVM_SIGNAL_MSI."""

    _fields_ = (
        ("address_lo", c_uint32), ("address_hi", c_uint32), ("data", c_uint32), ("flags", c_uint32),
        ("devid", c_uint32), ("pad", c_uint8 * 12),
    )
