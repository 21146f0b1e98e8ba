"""Names of namespaces in the settings are checked before anything looks for them."""

import pytest

from foresize.settings import InvalidSettings, load_settings


@pytest.mark.parametrize("name", ["Shop", "shop_1", "-shop", "shop-", "shop/web", "s" * 64])
@pytest.mark.parametrize("key", ["NAMESPACES", "LEASE_NAMESPACE"])
def test_what_can_be_no_namespace_is_refused(key: str, name: str) -> None:
    """With where it stands, the name, and what names look like."""
    with pytest.raises(InvalidSettings) as refused:
        load_settings(None, {f"FORESIZE_SCALING__{key}": name}, {})

    assert f"FORESIZE_SCALING__{key}" in str(refused.value)
    assert f"{name!r} can be no namespace: a name has up to 63 lower-case letters" in str(refused.value)


@pytest.mark.parametrize("name", ["shop", "shop-2", "0", "s" * 63])
def test_what_kubernetes_takes_is_taken(name: str) -> None:
    """Up to its longest."""
    settings = load_settings(None, {"FORESIZE_SCALING__NAMESPACES": name}, {})

    assert settings.scaling.namespaces == (name,)
