"""Django through the gate: an app is made, migrated, changed, migrated there and back, and flushed. Each command is a program
of its own, as people run them. Who and where is in the environment."""

import os
import subprocess
import sys
from pathlib import Path

SETTINGS = """
import os
SECRET_KEY = "only a test"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "shelf"]
DATABASES = {"default": {
    "ENGINE": "django.db.backends.postgresql", "NAME": os.environ["PGDATABASE"], "HOST": os.environ["PGHOST"],
    "PORT": os.environ["PGPORT"], "USER": os.environ["PGUSER"], "PASSWORD": os.environ["PGPASSWORD"],
    "OPTIONS": {"sslmode": "verify-full", "sslrootcert": os.environ["PGSSLROOTCERT"]},
}}
"""
FIRST = """
from django.db import models
class Book(models.Model):
    title = models.CharField(max_length=200, db_index=True)
"""
SECOND = FIRST + """
    price = models.DecimalField(max_digits=8, decimal_places=2, default=1)
    about = models.JSONField(default=dict)
    class Meta:
        constraints = [models.CheckConstraint(condition=models.Q(price__gt=0), name="has_a_price")]
class Copy(models.Model):
    book = models.ForeignKey(Book, on_delete=models.CASCADE)
"""
USE = """
from django.db import transaction, IntegrityError
from shelf.models import Book, Copy
Book.objects.bulk_create(Book(title=f"book {n}", about={"n": n}) for n in range(300))
with transaction.atomic():
    for book in Book.objects.filter(about__n__lt=10).select_for_update():
        Copy.objects.create(book=book)
assert Copy.objects.filter(book__title__startswith="book").count() == 10
assert len(list(Book.objects.iterator(chunk_size=50))) == 300
try:
    with transaction.atomic():
        Book.objects.create(title="free", price=0)
    raise SystemExit("it was free")
except IntegrityError:
    pass
"""


def manage(*args):
    env = os.environ | {"DJANGO_SETTINGS_MODULE": "settings", "PYTHONPATH": os.getcwd(), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-m", "django", *args], env=env, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, f"{args}: {done.stdout}\n{done.stderr}"
    return done.stdout


Path("shelf").mkdir()
Path("shelf/__init__.py").touch()
Path("settings.py").write_text(SETTINGS)
models = Path("shelf/models.py")
models.write_text(FIRST)
manage("makemigrations", "shelf", "-n", "first")
manage("migrate")
models.write_text(SECOND)
manage("makemigrations", "shelf", "-n", "second")
assert "has_a_price" in manage("sqlmigrate", "shelf", "0002")
manage("migrate")
manage("shell", "-c", USE)
assert "[X] 0002_second" in manage("showmigrations", "shelf")
manage("migrate", "shelf", "0001")
manage("migrate", "shelf")
manage("flush", "--no-input")
assert "none left" in manage("shell", "-c", "from shelf.models import Book; print('none left' if Book.objects.count() == 0 else 'some')")
